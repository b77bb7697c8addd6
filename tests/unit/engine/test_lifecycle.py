"""A sprite's life on a real disk, with a box in memory around it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from spriggan.box.box import State
from spriggan.disk.guard import Reading
from spriggan.engine import CreateRequest, Engine, waking
from spriggan.errors import AlreadyExists, Broken, Conflict, InvalidValue, NoSpace, NotFound
from spriggan.wire.spec import SpriteSpec

from .conftest import OPTIONS
from .world import World

Start = Callable[..., Awaitable[Engine]]


async def write(engine: Engine, world: World, name: str, text: str) -> None:
    async with engine.awake(name, "a test") as awake:
        (world.box.where(awake.sprite.id) / "state").write_text(text)


async def read(engine: Engine, world: World, name: str) -> str:
    async with engine.awake(name, "a test") as awake:
        return (world.box.where(awake.sprite.id) / "state").read_text()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_from_create_to_destroy(start: Start, world: World) -> None:
    engine = await start()
    made = await engine.create(CreateRequest("dev", environment={"A": "b"}, labels=["x"]))
    assert (made.status, made.phase, made.config["storage_gb"]) == ("cold", "cold", 1)
    async with engine.awake("dev", "a test") as awake:
        assert awake.sprite.status == "running" and awake.sprite.awake_because == ["a test"]
        spec = world.box.specs[made.id]
        assert spec.environment == {"LANG": "C.UTF-8", "A": "b"} and spec.hostname == "dev"
        assert await engine.check_capability(spec.capability) == "dev"
        assert await engine.counts() == {"running": 1, "warm": 0, "cold": 0}
    await engine.stop("dev")
    assert (await engine.get("dev")).status == "cold"
    assert await engine.check_capability(spec.capability) is None
    await engine.destroy("dev")
    for call in (engine.get("dev"), engine.destroy("dev"), engine.stop("dev")):
        with pytest.raises(NotFound):
            await call
    assert not list((world.pool.root / "disks").iterdir())
    assert world.uplinks.slots == set()


async def test_a_hold_of_what_runs_anyway(start: Start, world: World) -> None:
    engine = await start()
    made = await engine.create(CreateRequest("dev"))
    assert engine.hold(made.id, "nobody") is None
    runs = []
    for end in (engine.stop, engine.restart, engine.destroy):
        async with engine.awake("dev", "a test") as awake:
            hold = engine.hold(made.id, "another")
            assert hold is not None
            with hold as run:
                assert run == awake.run
                assert (await engine.get("dev")).awake_because == ["a test", "another"]
            assert (await engine.get("dev")).awake_because == ["a test"]
        runs.append(awake.run)
        await end("dev")
    assert engine.hold(made.id, "nobody") is None
    assert runs == sorted(set(runs))  # another one after each end


async def test_what_is_remembered_of_a_sprite(start: Start) -> None:
    engine = await start()
    await engine.create(CreateRequest("dev"))
    for auth in ("public", "sprite", "public"):
        await engine.update("dev", url_settings={"auth": auth})
        assert engine.remembered("dev") is None
        found = await engine.get("dev")
        assert found.url_settings["auth"] == auth and engine.remembered("dev") == found
    await engine.destroy("dev")
    assert engine.remembered("dev") is None


async def test_names_are_unique_also_at_once(start: Start) -> None:
    engine = await start()
    results = await asyncio.gather(
        *(engine.create(CreateRequest("dev")) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, AlreadyExists) for result in results) == 4
    assert len((await engine.list())[0]) == 1


async def test_refusals_change_nothing(start: Start, world: World) -> None:
    engine = await start()
    for request in (
        CreateRequest("Dev"),
        CreateRequest("dev", image="none"),
        CreateRequest("dev", box="tin"),
        CreateRequest("dev", config={"ram_mb": 1}),
    ):
        with pytest.raises((InvalidValue, NotFound)):
            await engine.create(request)
    world.reserve.said = Reading(reserve=100, free=50, pending=0, metadata_free=1 << 40)
    with pytest.raises(NoSpace):
        await engine.create(CreateRequest("dev"))
    assert await engine.list() == ([], None)
    assert not list((world.pool.root / "disks").iterdir())


async def test_a_look_at_a_sprite_that_is_stopped_meanwhile_finds_nothing_wrong(
    start: Start, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes have ended then, and they were meant to."""
    engine = await start()
    await engine.create(CreateRequest("dev"))
    await write(engine, world, "dev", "x")
    real, begun, go_on = world.box.state, threading.Event(), threading.Event()

    def state(sprite_id: str) -> State:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(30)
        return real(sprite_id)

    monkeypatch.setattr(world.box, "state", state)
    looking = asyncio.create_task(engine.check("dev"))
    assert await asyncio.to_thread(begun.wait, 30)
    await engine.stop("dev")
    go_on.set()
    found = await looking
    assert (found.status, found.reason, found.sprite.phase) == ("hibernated", None, "cold")


async def test_checkpoints_number_on_and_the_current_one_stays(start: Start, world: World) -> None:
    engine = await start()
    await engine.create(CreateRequest("dev"))
    assert (await engine.checkpoint("dev", "cold")).id == "v1"
    await write(engine, world, "dev", "two")
    second = await engine.checkpoint("dev", "live")
    assert (second.id, second.source_id, second.is_current) == ("v2", "v1", True)
    with pytest.raises(Conflict):
        await engine.delete_checkpoint("dev", "v2")
    await engine.checkpoint("dev")
    await engine.delete_checkpoint("dev", "v2")
    assert [known.id for known in await engine.checkpoints("dev")] == ["v1", "v3"]
    assert (await engine.checkpoint("dev")).id == "v4"
    for unknown in ("v2", "v9", "../v1", "Current", ""):
        with pytest.raises(NotFound):
            await engine.get_checkpoint("dev", unknown)
        with pytest.raises(NotFound):
            await engine.restore("dev", unknown)


async def test_restore_brings_back_and_keeps_three_automatic_ones(start: Start, world: World) -> None:
    engine = await start()
    sprite = await engine.create(CreateRequest("dev"))
    await write(engine, world, "dev", "old")
    await engine.checkpoint("dev")
    for number in range(5):
        await write(engine, world, "dev", f"new {number}")
        await engine.restore("dev", "v1")
        assert await read(engine, world, "dev") == "old"
    known = await engine.checkpoints("dev", True)
    automatic = [each.id for each in known if each.is_auto]
    assert len(automatic) == 3 and (await engine.get("dev")).current_checkpoint == "v1"
    assert [each.id for each in await engine.checkpoints("dev")] == ["v1"]
    kept = sorted(path.name for path in world.pool.checkpoint_dir(sprite.id, "v1").parent.iterdir())
    assert kept == sorted([*automatic, "v1"])
    await engine.stop("dev")
    await engine.restore("dev", automatic[-1])
    assert (await engine.get("dev")).status == "cold"
    assert await read(engine, world, "dev") == "new 4"


async def test_a_restore_that_does_not_start_leaves_the_old_disk_running(start: Start, world: World) -> None:
    engine = await start()
    sprite = await engine.create(CreateRequest("dev"))
    await write(engine, world, "dev", "old")
    await engine.checkpoint("dev")
    await write(engine, world, "dev", "new")
    attempts = iter([True, False])
    world.box.fail_start = lambda sprite_id: next(attempts, False)
    with pytest.raises(Broken, match="will not start"):
        await engine.restore("dev", "v1")
    assert (await engine.get("dev")).status == "running"
    assert (world.box.where(sprite.id) / "state").read_text() == "new"
    assert [each.id for each in await engine.checkpoints("dev", True)] == ["v1"]
    assert not list((world.pool.root / "disks").glob("*.next"))


async def test_fork_of_a_live_disk_and_of_a_checkpoint(start: Start, world: World) -> None:
    engine = await start()
    await engine.create(CreateRequest("dev", url_settings={"auth": "public"}))
    await write(engine, world, "dev", "one")
    await engine.checkpoint("dev")
    await write(engine, world, "dev", "two")
    live = await engine.fork("dev", "live")
    old = await engine.fork("dev", "old", "v1")
    assert live.url_settings["auth"] == "sprite"
    assert len({live.id, old.id, (await engine.get("dev")).id}) == 3
    assert await read(engine, world, "live") == "two"
    assert await read(engine, world, "old") == "one"
    assert await engine.checkpoints("live", True) == []
    for bad, error in (("live", AlreadyExists), ("Bad", InvalidValue)):
        with pytest.raises(error):
            await engine.fork("dev", bad)
    with pytest.raises(NotFound):
        await engine.fork("dev", "other", "v7")
    await write(engine, world, "live", "mine")
    assert await read(engine, world, "dev") == "two"


async def test_idle_means_warm_and_use_thaws(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, idle_seconds=0.2))
    sprite = await engine.create(CreateRequest("dev"))

    async def is_warm() -> bool:
        return (await engine.get("dev")).status == "warm"

    world.box.reasons = ["session 1"]
    async with engine.awake("dev", "a test"):
        await asyncio.sleep(0.5)
        assert not await is_warm()
    await asyncio.sleep(0.5)
    assert not await is_warm()
    assert await engine.reasons("dev") == ["session 1"]
    world.box.reasons = []
    await until(is_warm)
    assert world.box.frozen(sprite.id)
    await engine.checkpoint("dev")
    await engine.restore("dev", "v1")
    await until(is_warm)
    async with engine.awake("dev", "a test"):
        assert not world.box.frozen(sprite.id)


async def test_warm_becomes_cold_where_that_is_wished(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, idle_seconds=0.1, cold_after_seconds=0.2))
    await engine.create(CreateRequest("dev"))
    async with engine.awake("dev", "a test"):
        pass

    async def is_cold() -> bool:
        return (await engine.get("dev")).status == "cold"

    await until(is_cold)
    assert (await engine.get("dev")).last_error is None


async def test_what_ended_by_itself_is_noticed_and_started_again(start: Start, world: World) -> None:
    engine = await start()
    sprite = await engine.create(CreateRequest("dev"))
    await write(engine, world, "dev", "kept")
    world.box.lose(sprite.id)
    assert await read(engine, world, "dev") == "kept"
    assert "processes ended" in ((await engine.get("dev")).last_error or "")
    world.box.states[sprite.id] = State.NO_PILOT
    assert await read(engine, world, "dev") == "kept"
    assert "pilot died" in ((await engine.get("dev")).last_error or "")


async def test_a_pilot_that_nobody_needs_ends_until_somebody_does(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, retire_after_seconds=0.2))
    sprite = await engine.create(CreateRequest("dev"))

    async def is_retired() -> bool:
        return world.box.state(sprite.id) is State.RETIRED

    await write(engine, world, "dev", "kept")
    async with engine.awake("dev", "a test"):
        await asyncio.sleep(0.5)
        assert not await is_retired()
    for _ in range(3):
        await until(is_retired)
        await asyncio.sleep(0.3)
        assert (await engine.check("dev")).status == "healthy" and await engine.reasons("dev") == []
        assert await is_retired() and (await engine.get("dev")).status == "running"
        assert await read(engine, world, "dev") == "kept"
        assert not await is_retired()
    await until(is_retired)
    await engine.close()
    engine = await start(replace(OPTIONS, retire_after_seconds=0.2))
    assert await is_retired() and (await engine.get("dev")).status == "running"
    await engine.policies.set("dev", "network", {"rules": []})
    assert not await is_retired()
    assert (await engine.get("dev")).last_error is None


async def test_a_pilot_that_is_needed_is_asked_again_later(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, retire_after_seconds=0.3))
    sprite = await engine.create(CreateRequest("dev"))
    world.box.pilot_is_needed = True
    async with engine.awake("dev", "a test"):
        pass
    await asyncio.sleep(1.5)
    assert 2 <= world.box.asked_to_retire <= 5
    world.box.reasons = ["session 1"]
    await asyncio.sleep(0.3)
    asked = world.box.asked_to_retire
    await asyncio.sleep(0.6)
    assert world.box.asked_to_retire == asked
    assert world.box.state(sprite.id) is State.RUNNING


async def test_warm_sprites_do_without_a_pilot_too(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, idle_seconds=0.2, retire_after_seconds=0.2))
    sprite = await engine.create(CreateRequest("dev"))

    async def is_asleep() -> bool:
        retired = world.box.state(sprite.id) is State.RETIRED
        return retired and (await engine.get("dev")).status == "warm"

    async with engine.awake("dev", "a test"):
        pass
    await until(is_asleep)
    async with engine.awake("dev", "a test"):
        assert world.box.state(sprite.id) is State.RUNNING and not world.box.frozen(sprite.id)
    await until(is_asleep)
    world.box.states[sprite.id] = State.ENDED

    async def is_cold() -> bool:
        return (await engine.get("dev")).status == "cold"

    await until(is_cold)
    assert "first process" in ((await engine.get("dev")).last_error or "")


async def test_a_revival_that_fails_is_a_new_start(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, retire_after_seconds=0.2))
    sprite = await engine.create(CreateRequest("dev"))
    await write(engine, world, "dev", "kept")

    async def is_retired() -> bool:
        return world.box.state(sprite.id) is State.RETIRED

    await until(is_retired)
    world.box.fail_revival = True
    assert await read(engine, world, "dev") == "kept"
    assert "will not serve" in ((await engine.get("dev")).last_error or "")


async def test_a_dead_init_means_cold(start: Start, world: World) -> None:
    engine = await start(replace(OPTIONS, idle_seconds=0.2))
    await engine.create(CreateRequest("dev"))
    async with engine.awake("dev", "a test"):
        world.box.init_lives = False

        async def is_cold() -> bool:
            return (await engine.get("dev")).status == "cold"

        await until(is_cold)
        assert "first process" in ((await engine.get("dev")).last_error or "")
    # Whoever wakes it is to learn what became of its processes, though that was noticed before.
    world.box.init_lives = True
    async with engine.awake("dev", "a test"):
        assert "first process" in ((await engine.get("dev")).last_error or "")
    await engine.stop("dev")
    async with engine.awake("dev", "a test"):
        assert (await engine.get("dev")).last_error is None


async def test_a_start_that_fails_says_so_and_leaves_nothing(start: Start, world: World) -> None:
    engine = await start()
    await engine.create(CreateRequest("dev"))
    world.box.fail_start = lambda sprite_id: True
    with pytest.raises(Broken, match="will not start"):
        async with engine.awake("dev", "a test"):
            pass
    shown = await engine.get("dev")
    assert (shown.status, shown.last_error) == ("cold", "it will not start")
    assert world.uplinks.slots == set() and world.box.list() == []
    world.box.fail_start = lambda sprite_id: False
    async with engine.awake("dev", "a test"):
        assert (await engine.get("dev")).last_error is None


async def test_a_client_that_goes_away_leaves_a_whole_sprite(start: Start) -> None:
    engine = await start()
    creating = asyncio.create_task(engine.create(CreateRequest("dev")))
    for _ in range(200):
        await asyncio.sleep(0.005)
        if (await engine.list())[0]:
            break
    creating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await creating
    async with engine.awake("dev", "a test") as awake:
        assert awake.sprite.status == "running"


async def test_writers_are_paused_when_space_is_short_and_go_on_after(start: Start, world: World) -> None:
    engine = await start()
    for name in ("writes", "reads"):
        await engine.create(CreateRequest(name))
        await write(engine, world, name, "x")
    world.reserve.said = Reading(reserve=100, free=500, pending=0, metadata_free=1 << 40)
    await asyncio.sleep(0.5)
    world.reserve.said = Reading(reserve=100, free=10, pending=0, metadata_free=1 << 40)

    async def is_paused() -> bool:
        sprite = await engine.get("writes")
        place = world.box.where(sprite.id) / "state"
        with place.open("ab") as file:
            file.write(b"x" * (2 << 20))
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        return sprite.phase == "paused"

    await until(is_paused)
    shown = await engine.get("writes")
    assert shown.awake_because[0].startswith("paused: it writes") and "reserve" in (shown.last_error or "")
    with pytest.raises(NoSpace, match="reserve"):
        async with engine.awake("writes", "a test"):
            pass
    assert await read(engine, world, "reads") == "x"
    world.reserve.said = None

    async def goes_on() -> bool:
        return (await engine.get("writes")).phase == "running"

    await until(goes_on)
    assert not world.box.frozen(shown.id)


async def test_update_keeps_what_is_not_given(start: Start) -> None:
    engine = await start()
    await engine.create(CreateRequest("dev", labels=["a"]))
    changed = await engine.update("dev", url_settings={"auth": "public"})
    assert (changed.labels, changed.url_settings["auth"]) == (["a"], "public")
    changed = await engine.update("dev", labels=[])
    assert (changed.labels, changed.url_settings["auth"]) == ([], "public")
    with pytest.raises(InvalidValue):
        await engine.update("dev", url_settings={"auth": "x"})


async def test_of_many_starts_at_once_the_first_asked_for_are_the_first(
    start: Start, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start()
    names = [f"dev-{number}" for number in range(waking.AT_ONCE + 3)]
    for name in names:
        await engine.create(CreateRequest(name))
    begun: list[str] = []
    may_end = asyncio.Event()
    real = world.box.start

    async def slow(spec: SpriteSpec, netns: int) -> None:
        begun.append(spec.name)
        await may_end.wait()
        await real(spec, netns)

    monkeypatch.setattr(world.box, "start", slow)
    asked = []
    for name in names:
        asked.append(asyncio.create_task(write(engine, world, name, "here")))
        await asyncio.sleep(0.01)

    async def full() -> bool:
        return len(begun) == waking.AT_ONCE

    await until(full)
    await asyncio.sleep(0.2)
    assert set(begun) == set(names[: waking.AT_ONCE])
    may_end.set()
    await asyncio.gather(*asked)
    assert set(begun) == set(names)
