"""Where the commands of a sprite start: imported images say so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("sprites", sa.Column("working_dir", sa.Text, nullable=False, server_default=""))
