"""The first tables: sprites, checkpoints, tokens, intents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "sprites",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("image", sa.Text, nullable=False),
        sa.Column("layers", sa.JSON, nullable=False),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("shell", sa.Text, nullable=False),
        sa.Column("image_environment", sa.JSON, nullable=False),
        sa.Column("box", sa.Text, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("url_settings", sa.JSON, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("last_running_at", _TIME),
        sa.Column("last_warming_at", _TIME),
        sa.Column("next_checkpoint", sa.Integer, nullable=False),
        sa.Column("current_checkpoint", sa.Text),
        sa.Column("capability_hash", sa.Text),
    )
    op.create_table(
        "checkpoints",
        sa.Column("sprite_id", sa.Text, sa.ForeignKey("sprites.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("create_time", _TIME, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text),
        sa.Column("is_auto", sa.Boolean, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("revoked_at", _TIME),
    )
    op.create_table(
        "intents",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("sprite_id", sa.Text, nullable=False),
        sa.Column("sprite_name", sa.Text, nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
    )
