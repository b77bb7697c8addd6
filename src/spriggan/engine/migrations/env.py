"""Run by Alembic: migrates the connection that ``migration.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from spriggan.engine.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll back CREATE TABLE; with this, an interrupted migration leaves nothing behind.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
