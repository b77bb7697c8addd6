"""The database: every record, reached through one thread.

SQLite has one writer at a time anyway; with one thread nobody waits inside a lock, and
the event loop never waits for a disk. What a call of ``run`` did is durable when it
returns (WAL with ``synchronous=FULL``), or has not happened at all.

Nobody else writes to it while a server has the data directory, so what was read is remembered until the next
call of ``run``, which may have changed it. It is forgotten in the store's thread, before that call returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from spriggan.engine import schema
from spriggan.errors import Broken, Conflict

T = TypeVar("T")

MAX_REMEMBERED = 1024


class Store:
    """Runs functions in transactions: ``await store.run(lambda tx: rows.sprite(tx, id))``."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._database: sa.Engine | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._remembered: dict[tuple[Any, str], Any] = {}

    async def open(self) -> None:
        """Connect, and bring the tables to this version.

        Raises ``Conflict`` if a newer version wrote the database, ``Broken`` if it cannot be read.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Finish what is under way, then let go of the database."""
        if self._database is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.dispose)
        self._thread.shutdown()
        self._database = None

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in one transaction: committed when it returns, undone when it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def read(
        self, find: Callable[[Connection, str], T | None], wanted: str, *, anew: bool = False
    ) -> T | None:
        """What ``find``, which changes nothing, finds for ``wanted``; unless ``anew``, it may be remembered.

        Callers share what is returned, and leave it as it is.
        """
        found = None if anew else self.remembered(find, wanted)
        if found is not None:
            return found
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, find, wanted)

    def remembered(self, find: Callable[[Connection, str], T | None], wanted: str) -> T | None:
        """What ``read`` would return without asking the database; None if it had to."""
        found: T | None = self._remembered.get((find, wanted))
        return found

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._transact(work)
        finally:
            self._remembered.clear()

    def _read(self, find: Callable[[Connection, str], T | None], wanted: str) -> T | None:
        found = self._transact(lambda tx: find(tx, wanted))
        if found is not None:  # names that nobody has do not drive out others
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[find, wanted] = found
        return found

    def _transact(self, work: Callable[[Connection], T]) -> T:
        if self._database is None:
            raise RuntimeError("the store is not open")
        try:
            with self._database.begin() as transaction:
                return work(transaction)
        except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            raise self._broken(error) from error

    def _broken(self, error: sa.exc.DBAPIError) -> Broken:
        url = sa.engine.make_url(self.url)
        name = url.database if url.drivername == "sqlite" else url.render_as_string(hide_password=True)
        return Broken(
            f"the database {name} failed: {error.orig}",
            hint="check that its disk is not full and not damaged; nothing was changed by this call",
        )

    def _open(self) -> None:
        database = sa.create_engine(self.url)
        if database.dialect.name == "sqlite":
            sa.event.listen(database, "connect", _prepare_sqlite)
            sa.event.listen(database, "begin", _begin_sqlite)
        try:
            with database.begin() as connection:
                _bring_up_to_date(connection)
        except Conflict:
            database.dispose()
            raise
        except sa.exc.DatabaseError as error:
            database.dispose()
            raise self._broken(error) from error
        self._database = database


def _bring_up_to_date(connection: Connection) -> None:
    """Bring the tables behind ``connection`` to this version, inside its transaction.

    Raises ``Conflict`` if a newer version wrote them.
    """
    found = schema.revision(connection)
    if found is None:
        schema.create(connection)
    elif found != schema.REVISION:
        # Only here: Alembic is needed once after an upgrade, and would stay in the memory of every server.
        from spriggan.engine.migration import migrate  # noqa: PLC0415

        migrate(connection)


def sqlite_url(path: Path) -> str:
    """The URL of an SQLite database in file ``path``."""
    return str(sa.URL.create("sqlite", database=str(path)))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's module must not begin and end transactions on its own: it would commit
    # a half-made table before its next statement.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
