"""Spares where a real box would take long: short of space, with boxes that fail, and as limits count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from spriggan.disk.guard import Reading
from spriggan.engine import CreateRequest, Engine, Options, spares
from spriggan.errors import LimitReached

from .conftest import OPTIONS
from .world import World

Start = Callable[[Options], Awaitable[Engine]]
ONE = replace(OPTIONS, spares=1)
FULL = Reading(reserve=2, free=1, pending=0, metadata_free=1 << 40)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "ROUND_S", 0.05)
    monkeypatch.setattr(spares, "QUIET_S", 0.01)
    monkeypatch.setattr(spares, "PAUSES_S", (0.01, 0.05))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_create_takes_it_and_another_is_made(start: Start, world: World) -> None:
    engine = await start(ONE)
    await until(world.box.list)
    [spare] = world.box.list()
    assert await engine.counts() == {"running": 0, "warm": 0, "cold": 0}
    assert (await engine.create(CreateRequest("named"))).id == spare
    await until(lambda: len(world.box.list()) == 2)
    async with engine.awake("named", "test") as awake:
        assert awake.sprite.status == "running"
        assert world.box.specs[spare].name == "named"


async def test_it_counts_for_no_limit(start: Start, world: World) -> None:
    engine = await start(replace(ONE, max_running=1))
    for name in ("one", "other"):
        await until(world.box.list)
        await engine.create(CreateRequest(name))
    async with engine.awake("one", "test"):
        with pytest.raises(LimitReached):
            async with engine.awake("other", "test"):
                pass


async def test_a_pool_short_of_space_has_none(start: Start, world: World) -> None:
    await start(ONE)
    await until(world.box.list)
    world.reserve.said = FULL
    await until(lambda: not world.box.list())
    await until(lambda: not list((world.pool.root / "disks").iterdir()))
    assert not world.uplinks.slots
    await asyncio.sleep(0.2)
    assert not world.box.list()
    world.reserve.said = None
    await until(world.box.list)


async def test_a_failure_is_told_once(start: Start, world: World, caplog: pytest.LogCaptureFixture) -> None:
    tried = []
    world.box.fail_start = lambda sprite_id: bool(tried.append(sprite_id) or True)
    with caplog.at_level(logging.WARNING):
        await start(ONE)
        await until(lambda: len(tried) > 3)
        assert sum("no spare" in record.message for record in caplog.records) == 1
    world.box.fail_start = lambda sprite_id: False
    await until(world.box.list)


async def test_one_that_does_not_serve_is_replaced_by_a_start(start: Start, world: World) -> None:
    engine = await start(ONE)
    await until(world.box.list)
    sprite = await engine.create(CreateRequest("named"))
    world.box.fail_take = True
    async with engine.awake("named", "test") as awake:
        assert awake.sprite.status == "running"
        assert world.box.specs[sprite.id].name == "named"


async def test_the_next_engine_says_nothing_of_it(start: Start, world: World) -> None:
    first = await start(ONE)
    await until(world.box.list)
    kept, world.box.stop = world.box.stop, _not  # type: ignore[method-assign]
    await first.close()
    world.box.stop = kept  # type: ignore[method-assign]
    assert world.box.list()
    second = await start(OPTIONS)
    assert second.recovery_report == []
    assert not world.box.list()
    assert not list((world.pool.root / "disks").iterdir())


async def _not(sprite_id: str, *, grace: float) -> None:
    """As if the process had ended before."""
