"""The database: migrations, transactions, and what damages do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection

from spriggan.engine import rows, schema
from spriggan.engine import store as store_module
from spriggan.engine.migration import migrate
from spriggan.engine.records import URL_SETTINGS_DEFAULT, Checkpoint, SpriteConfig, SpriteRow
from spriggan.engine.store import Store, sqlite_url
from spriggan.errors import AlreadyExists, Broken, Conflict


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(sqlite_url(tmp_path / "state.db"))
    await opened.open()
    yield opened
    await opened.close()


def row(name: str, **changes: Any) -> SpriteRow:
    values: dict[str, Any] = {
        "id": f"sprite-{name}",
        "name": name,
        "created_at": rows.now(),
        "updated_at": rows.now(),
        "image": "sprites",
        "layers": ["0" * 64],
        "user": "sprite",
        "shell": "/bin/zsh",
        "image_environment": {},
        "box": "container",
        "config": SpriteConfig(ram_mb=512, cpus=0, storage_gb=1, pids=100),
        "labels": ["é"],
        "environment": {"A": "b"},
        "url_settings": dict(URL_SETTINGS_DEFAULT),
    }
    return SpriteRow(**{**values, **changes})


def checkpoint(sprite_id: str, checkpoint_id: str) -> Checkpoint:
    return Checkpoint(sprite_id, checkpoint_id, rows.now(), "", None, False, 4096)


def migrated(path: Path, revision: str = "head") -> str:
    """The URL of a database that all migrations up to ``revision`` have made."""
    url = sqlite_url(path)
    database = sa.create_engine(url)
    with database.begin() as connection:
        migrate(connection, revision)
    database.dispose()
    return url


def described(tx: Connection) -> dict[str, Any]:
    """Everything that SQLite knows of the tables, but the order of columns, which nobody goes by."""
    tables = tx.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'table'").scalars().all()
    facts = ("table_info", "foreign_key_list", "index_list")
    return {
        table: [{tuple(row)[1:] for row in tx.exec_driver_sql(f"PRAGMA {fact}({table})")} for fact in facts]
        for table in tables
        if not table.startswith("sqlite_")
    }


async def test_migrations_lead_to_the_schema(tmp_path: Path) -> None:
    opened = Store(migrated(tmp_path / "state.db"))
    await opened.open()

    def differences(tx: Connection) -> list[Any]:
        return list(compare_metadata(MigrationContext.configure(tx), schema.metadata))

    assert await opened.run(differences) == []
    await opened.close()


async def test_a_new_database_is_as_the_migrations_would_make_it(store: Store, tmp_path: Path) -> None:
    other = Store(migrated(tmp_path / "migrated.db"))
    await other.open()
    made = await store.run(described)
    assert made == await other.run(described) and len(made) > 3
    assert await store.run(schema.revision) == await other.run(schema.revision) == schema.REVISION
    await other.close()


async def test_a_database_of_the_first_version_is_upgraded(tmp_path: Path) -> None:
    url = migrated(tmp_path / "state.db", "0001")
    database = sa.create_engine(url)
    with database.begin() as tx:
        assert schema.revision(tx) == "0001"
        known = sa.Table("sprites", sa.MetaData(), autoload_with=tx)
        values = {name: value for name, value in asdict(row("dev")).items() if name in known.columns}
        times = {
            name: value.replace(tzinfo=None)
            for name, value in values.items()
            if name.endswith("_at") and value
        }
        tx.execute(known.insert().values(**values | times))
    database.dispose()
    for _ in range(2):  # the second time there is nothing to do
        opened = Store(url)
        await opened.open()
        found = await opened.run(lambda tx: rows.sprite_by_name(tx, "dev"))
        assert found is not None and (found.labels, found.working_dir, found.policies) == (["é"], "", {})
        assert await opened.run(schema.revision) == schema.REVISION
        await opened.close()


async def test_what_is_acknowledged_is_durable(store: Store) -> None:
    def pragmas(tx: Connection) -> tuple[Any, Any, Any]:
        read = [
            tx.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
        return read[0], read[1], read[2]

    assert await store.run(pragmas) == ("wal", 2, 1)


async def test_a_row_comes_back_as_it_went(store: Store) -> None:
    mine = row("dev")
    await store.run(lambda tx: rows.insert_sprite(tx, mine))
    assert await store.run(lambda tx: rows.sprite(tx, mine.id)) == mine
    assert await store.run(lambda tx: rows.sprite_by_name(tx, "dev")) == mine
    with pytest.raises(AlreadyExists):
        await store.run(lambda tx: rows.insert_sprite(tx, row("dev", id="sprite-other")))


async def test_what_is_remembered_is_never_older_than_the_last_change(store: Store) -> None:
    assert await store.read(rows.sprite_by_name, "dev") is None
    await store.run(lambda tx: rows.insert_sprite(tx, row("dev")))
    for number in range(20):
        first, again = [await store.read(rows.sprite_by_name, "dev") for _ in range(2)]
        assert first is again is store.remembered(rows.sprite_by_name, "dev")
        public = {"auth": "public", "private_access": str(number)}
        reading = asyncio.create_task(store.read(rows.sprite_by_name, "dev", anew=True))
        await asyncio.sleep(0)
        await store.run(lambda tx, public=public: rows.update_sprite(tx, "sprite-dev", url_settings=public))
        assert store.remembered(rows.sprite_by_name, "dev") is None
        await reading  # begun before the change, and so not remembered after it
        found = await store.read(rows.sprite_by_name, "dev")
        assert found is not None and found.url_settings == public
    await store.run(lambda tx: rows.delete_sprite(tx, "sprite-dev"))
    assert await store.read(rows.sprite_by_name, "dev") is None


async def test_so_much_is_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MAX_REMEMBERED", 2)
    for name in "abc":
        await store.run(lambda tx, name=name: rows.insert_sprite(tx, row(name)))
    for name in "abc":
        await store.read(rows.sprite_by_name, name)
        await store.read(rows.sprite_by_name, "nobody")
    assert store.remembered(rows.sprite_by_name, "a") is None
    assert store.remembered(rows.sprite_by_name, "c") is not None


async def test_what_raises_is_undone(store: Store) -> None:
    def work(tx: Connection) -> None:
        rows.insert_sprite(tx, row("dev"))
        raise ValueError

    with pytest.raises(ValueError):
        await store.run(work)
    assert await store.run(rows.sprites) == []


async def test_pages_by_name_and_prefix(store: Store) -> None:
    for name in ("b", "a2", "a1", "a-x", "ab"):
        await store.run(lambda tx, name=name: rows.insert_sprite(tx, row(name)))

    async def names(*arguments: Any) -> list[str]:
        return [found.name for found in await store.run(lambda tx: rows.sprites(tx, *arguments))]

    assert await names() == ["a-x", "a1", "a2", "ab", "b"]
    assert await names("a", 2) == ["a-x", "a1"]
    assert await names("a", 2, "a1") == ["a2", "ab"]
    assert await names("A") == [] and await names("%") == [] and await names("a_") == []


async def test_checkpoints_die_with_their_sprite(store: Store) -> None:
    mine, other = row("one", current_checkpoint="v2"), row("two")
    for each in (mine, other):
        await store.run(lambda tx, each=each: rows.insert_sprite(tx, each))
        for number in ("v1", "v2"):
            await store.run(lambda tx, e=each, n=number: rows.insert_checkpoint(tx, checkpoint(e.id, n)))
    known = await store.run(lambda tx: rows.checkpoints(tx, mine.id))
    assert [(each.id, each.is_current) for each in known] == [("v1", False), ("v2", True)]
    await store.run(lambda tx: rows.delete_sprite(tx, mine.id))
    assert await store.run(rows.all_checkpoints) == {(other.id, "v1"), (other.id, "v2")}


async def test_intents_stay_until_closed(store: Store) -> None:
    intent = await store.run(lambda tx: rows.open_intent(tx, "restore", "s", "dev", {"a": 1}))
    assert await store.run(rows.intents) == [intent]
    assert await store.run(lambda tx: rows.intents(tx, "other")) == []
    await store.run(lambda tx: rows.close_intent(tx, intent))
    assert await store.run(rows.intents) == []


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "state.db")
    opened = Store(url)
    await opened.open()
    await opened.run(lambda tx: tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    await opened.close()
    again = Store(url)
    with pytest.raises(Conflict, match="newer version"):
        await again.open()
    await again.close()


async def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"nothing of the kind" * 1000)
    damaged = Store(sqlite_url(tmp_path / "state.db"))
    with pytest.raises(Broken, match="database"):
        await damaged.open()
    await damaged.close()


async def test_what_fails_leaves_the_store_usable(store: Store) -> None:
    def fails_at_its_end(tx: Connection) -> None:
        tx.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        rows.insert_checkpoint(tx, checkpoint("nobody", "v1"))

    def has_no_room(tx: Connection) -> None:
        tx.exec_driver_sql("PRAGMA max_page_count = 1")
        for number in range(1000):
            rows.insert_sprite(tx, row(f"many-{number}"))

    with pytest.raises(sa.exc.IntegrityError):
        await store.run(fails_at_its_end)
    with pytest.raises(Broken, match="full"):
        await store.run(has_no_room)
    await store.run(lambda tx: tx.exec_driver_sql("PRAGMA max_page_count = 1000000"))
    await store.run(lambda tx: rows.insert_sprite(tx, row("dev")))
    assert [found.name for found in await store.run(rows.sprites)] == ["dev"]
    assert await store.run(rows.all_checkpoints) == set()
