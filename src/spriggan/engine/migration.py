"""Brings the tables of an earlier version to this one."""

from __future__ import annotations

from pathlib import Path

import alembic.command
import alembic.config
import alembic.util
from sqlalchemy.engine import Connection

from spriggan.errors import Conflict

_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(connection: Connection, revision: str = "head") -> None:
    """Migrate the tables behind ``connection``, inside its transaction.

    Raises ``Conflict`` if a newer version wrote them.
    """
    config = alembic.config.Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, revision)
    except alembic.util.CommandError as error:
        raise Conflict(
            f"the database was written by a newer version of Spriggan ({error})",
            hint="install that version or a later one; going back is not possible",
        ) from error
