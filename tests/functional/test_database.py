"""Servers on databases of other versions."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import serving
from spriggan.engine import schema
from spriggan.engine.migration import migrate
from spriggan.engine.store import sqlite_url


@pytest.fixture
def server() -> Iterator[serving.Server]:
    with serving.server() as made:
        yield made


def change(server: serving.Server, *statements: str, revision: str = "head") -> None:
    """Make the database as it was at ``revision``, if there is none, and run ``statements``."""
    database = sa.create_engine(sqlite_url(server.data / "state.db"))
    with database.begin() as connection:
        migrate(connection, revision)
        for statement in statements:
            connection.exec_driver_sql(statement)
    database.dispose()


def tokens(server: serving.Server) -> str:
    command = [serving.SPRIGGAN, "token", "list", "--data", str(server.data)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_one_of_the_first_version_goes_on(server: serving.Server) -> None:
    known = "'0123456789abcdef', 'from before', 'hash', '2026-01-02 03:04:05.000000', NULL"
    change(server, f"INSERT INTO tokens VALUES ({known})", revision="0001")
    server.start()
    assert "from before" in tokens(server)
    created = subprocess.run(
        [serving.SPRIGGAN, "create", "dev", "--data", str(server.data)], capture_output=True, check=False
    )
    assert created.returncode == 0, created.stderr
    server.stop()
    server.start()  # from here on it is one of this version
    assert "from before" in tokens(server)
    server.stop()


def test_one_of_a_later_version_is_refused(server: serving.Server) -> None:
    change(server, "UPDATE alembic_version SET version_num = '9999'")
    command = [serving.SPRIGGAN, "serve", "--data", str(server.data), "--listen", "127.0.0.1:0"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 1
    assert "written by a newer version" in refused.stderr and "hint: install that version" in refused.stderr
    assert "Traceback" not in refused.stderr
    # Nothing of this version could take it down otherwise.
    with sqlite3.connect(server.data / "state.db") as database:
        database.execute("UPDATE alembic_version SET version_num = ?", [schema.REVISION])
