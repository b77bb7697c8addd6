"""What a sprite may show to the server is known from what its pilot was told, and was never read from here."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.drop_column("sprites", "capability_hash")
