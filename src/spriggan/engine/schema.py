"""The tables, as SQLAlchemy sees them; ``migrations/`` holds how a database of an earlier version gets there.

A new database is made from them directly. That the migrations lead to the same tables is tested.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.types import TypeDecorator

REVISION = "0004"  # of the newest migration


class UtcTime(TypeDecorator[datetime]):
    """A moment. SQLite keeps no time zone, so all are stored as UTC and come back as UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()

sprites = sa.Table(
    "sprites",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("image", sa.Text, nullable=False),
    sa.Column("layers", sa.JSON, nullable=False),
    sa.Column("user", sa.Text, nullable=False),
    sa.Column("shell", sa.Text, nullable=False),
    sa.Column("image_environment", sa.JSON, nullable=False),
    sa.Column("working_dir", sa.Text, nullable=False, server_default=""),
    sa.Column("box", sa.Text, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("environment", sa.JSON, nullable=False),
    sa.Column("url_settings", sa.JSON, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("last_error", sa.Text),
    sa.Column("last_running_at", UtcTime),
    sa.Column("last_warming_at", UtcTime),
    sa.Column("next_checkpoint", sa.Integer, nullable=False),
    sa.Column("current_checkpoint", sa.Text),
    sa.Column("policies", sa.JSON, nullable=False, server_default="{}"),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("sprite_id", sa.Text, sa.ForeignKey("sprites.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("create_time", UtcTime, nullable=False),
    sa.Column("comment", sa.Text, nullable=False),
    sa.Column("source_id", sa.Text),
    sa.Column("is_auto", sa.Boolean, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("revoked_at", UtcTime),
)

# No foreign key: the intent of a create that is undone, or of a destroy, outlives the sprite's row.
intents = sa.Table(
    "intents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("sprite_id", sa.Text, nullable=False),
    sa.Column("sprite_name", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
)

# Alembic's own, where it keeps the revision of a database.
_version = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def revision(connection: Connection) -> str | None:
    """The revision of the tables behind ``connection``; None if there are none yet."""
    if not sa.inspect(connection).has_table(_version.name):
        return None
    found: str | None = connection.execute(sa.select(_version.c.version_num)).scalar()
    return found


def create(connection: Connection) -> None:
    """Make all tables, of this version."""
    metadata.create_all(connection, checkfirst=False)
    _version.create(connection, checkfirst=False)
    connection.execute(_version.insert().values(version_num=REVISION))
