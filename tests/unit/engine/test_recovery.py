"""What a start makes of what an earlier engine left: each point of each change, and lost objects.

The engine dies here by an exception that nobody may handle; ``tests/crash`` does it with SIGKILL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator

import pytest

from spriggan import faults
from spriggan.box.box import State
from spriggan.engine import CreateRequest, Engine, rows
from spriggan.engine.intents import Intents
from spriggan.errors import Broken, NotFound, Unavailable

from .test_lifecycle import read, write
from .world import World

Start = Callable[..., Awaitable[Engine]]

POINTS = {
    "create": ["intent", "disk"],
    "fork": ["intent", "disk"],
    "checkpoint": ["intent", "snapshot"],
    "delete_checkpoint": ["intent", "disk"],
    "restore": ["intent", "prepared", "stopped", "kept", "swapped", "started"],
    "destroy": ["intent", "stop", "disk", "files"],
}


class Killed(BaseException):
    """The engine is dead from here on."""


@contextlib.contextmanager
def killed_at(point: str) -> Iterator[None]:
    """Whoever reaches ``point`` dies, and nothing is tidied up after it."""

    def reached(passed: str) -> None:
        if passed == point:
            raise Killed(point)

    async def settle(*_: object) -> list[str]:
        raise Killed(point)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "point", reached)
        patch.setattr(Intents, "settle", settle)
        with pytest.raises(Killed):
            yield


async def prepared(engine: Engine, world: World, *, running: bool) -> str:
    """A sprite "dev" with v1 ("one") and v2 ("two") whose disk says "three"; return its id."""
    sprite = await engine.create(CreateRequest("dev"))
    for text in ("one", "two"):
        await write(engine, world, "dev", text)
        await engine.checkpoint("dev")
    await write(engine, world, "dev", "three")
    if not running:
        await engine.stop("dev")
    return sprite.id


CASES = [
    (f"{kind}:{step}", running)
    for kind, steps in POINTS.items()
    for step in steps
    for running in (True, False)
    if (kind, step, running) != ("restore", "stopped", False)  # a cold sprite is not stopped
]


@pytest.mark.parametrize(("point", "running"), CASES)
async def test_a_change_is_finished_or_undone(start: Start, world: World, point: str, running: bool) -> None:
    kind = point.partition(":")[0]
    engine = await start()
    sprite_id = await prepared(engine, world, running=running)
    calls = {
        "create": lambda: engine.create(CreateRequest("new")),
        "fork": lambda: engine.fork("dev", "new"),
        "checkpoint": lambda: engine.checkpoint("dev"),
        "delete_checkpoint": lambda: engine.delete_checkpoint("dev", "v1"),
        "restore": lambda: engine.restore("dev", "v1"),
        "destroy": lambda: engine.destroy("dev"),
    }
    with killed_at(point):
        await calls[kind]()
    with contextlib.suppress(Killed):
        await engine.close()

    engine = await start()
    report = engine.recovery_report
    assert sum(line.startswith((f"undid {kind}", f"finished {kind.split('_')[0]}")) for line in report) <= 1
    assert any(line.startswith(("undid", "finished")) for line in report), report
    names = [sprite.name for sprite in (await engine.list())[0]]
    disks = {path.name for path in (world.pool.root / "disks").iterdir()}
    if kind == "destroy":
        assert names == [] and disks == set() and world.box.list() == []
        await engine.create(CreateRequest("dev"))
        return
    assert names == ["dev"] and disks == {sprite_id}
    ids = [known.id for known in await engine.checkpoints("dev", True)]
    kept = {path.name for path in world.pool.checkpoint_dir(sprite_id, "v1").parent.iterdir()}
    assert set(ids) == kept
    finished = any(line.startswith("finished restore") for line in report)
    assert finished == (point in ("restore:swapped", "restore:started"))
    assert (await engine.get("dev")).status == ("running" if running else "cold")
    assert await read(engine, world, "dev") == ("one" if finished else "three")
    assert (await engine.get("dev")).current_checkpoint == ("v1" if finished else "v2")
    if kind == "delete_checkpoint":
        assert ids == ["v2"]
    else:
        assert ids[:2] == ["v1", "v2"]
    if finished:
        await engine.restore("dev", ids[-1])
        assert await read(engine, world, "dev") == "three"
    assert (await engine.checkpoint("dev")).id == "v3"


async def test_what_runs_is_adopted(start: Start, world: World) -> None:
    engine = await start()
    for name in ("runs", "warm", "cold"):
        await engine.create(CreateRequest(name))
        await write(engine, world, name, name)
    await engine.stop("cold")
    ids = {name: (await engine.get(name)).id for name in ("runs", "warm")}
    world.box.freeze(ids["warm"])
    capability = world.box.specs[ids["runs"]].capability
    await engine.close()

    engine = await start()
    assert engine.recovery_report == []
    statuses = {sprite.name: sprite.status for sprite in (await engine.list())[0]}
    assert statuses == {"runs": "running", "warm": "warm", "cold": "cold"}
    assert await engine.check_capability(capability) == "runs"
    slots = set(world.uplinks.slots)
    assert await read(engine, world, "cold") == "cold"
    assert len(world.uplinks.slots - slots) == 1, "a slot was given twice"
    assert await read(engine, world, "warm") == "warm"


async def test_losses_are_told(start: Start, world: World) -> None:
    engine = await start()
    ids = {}
    for name in ("gone", "mute"):
        ids[name] = (await engine.create(CreateRequest(name))).id
        await write(engine, world, name, name)
    await engine.close()
    await world.box.stop(ids["gone"], grace=0)
    world.box.states[ids["mute"]] = State.NO_PILOT

    engine = await start()
    assert len(engine.recovery_report) == 2
    gone, mute = await engine.get("gone"), await engine.get("mute")
    assert gone.status == "cold" and "ended while no server" in (gone.last_error or "")
    assert mute.status == "running" and "sessions" in (mute.last_error or "")
    assert await read(engine, world, "gone") == "gone"


async def test_what_nobody_knows_is_removed(start: Start, world: World) -> None:
    engine = await start()
    sprite = await engine.create(CreateRequest("dev"))
    await write(engine, world, "dev", "x")
    stray = "sprite-00000000-0000-4000-8000-000000000000"
    world.pool.create_disk(stray, 1)
    world.pool.snapshot(stray, world.pool.checkpoint_dir(stray, "v1"))
    (world.data / "spool" / stray).mkdir(parents=True)
    core = engine._parts.core  # type: ignore[union-attr]
    await core.store.run(lambda tx: rows.delete_sprite(tx, sprite.id))
    world.uplinks.slots |= {7, 40000}
    await engine.close()

    engine = await start()
    assert (await engine.list())[0] == [] and world.box.list() == []
    assert not list((world.pool.root / "disks").iterdir())
    assert not list((world.pool.root / "checkpoints").iterdir())
    assert not list((world.data / "spool").iterdir())
    assert world.uplinks.slots == {40000}, "a link in another instance's block is not ours"


async def test_one_that_cannot_be_settled_keeps_nobody_down(start: Start, world: World) -> None:
    engine = await start()
    await engine.create(CreateRequest("good"))
    await prepared(engine, world, running=False)
    with killed_at("checkpoint:snapshot"):
        await engine.checkpoint("dev")
    with contextlib.suppress(Killed):
        await engine.close()

    def broken(path: object) -> None:
        raise OSError("the disk is on fire")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.pool, "retire", broken)
        engine = await start()
        assert "on fire" in engine.recovery_report[0]
        assert "on fire" in ((await engine.get("dev")).last_error or "")
        await write(engine, world, "good", "x")
        with pytest.raises(OSError, match="on fire"):
            await engine.checkpoint("dev")
    assert (await engine.checkpoint("dev")).id == "v3"
    assert await read(engine, world, "dev") == "three"


@pytest.mark.parametrize("ended", ["the container", "everything"])
async def test_one_that_cannot_be_taken_away_keeps_nobody_down(
    start: Start, world: World, ended: str
) -> None:
    engine = await start()
    ids = {}
    for name in ("stuck", "good"):
        ids[name] = (await engine.create(CreateRequest(name))).id
        await write(engine, world, name, name)
    await engine.close()
    if ended == "everything":
        world.box.lose(ids["stuck"])

    stop = world.box.stop

    async def stuck(sprite_id: str, *, grace: float) -> None:
        if sprite_id == ids["stuck"]:
            raise Broken("its disk is still in use")
        await stop(sprite_id, grace=grace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.box, "stop", stuck)
        patch.setattr(world.box, "init_lives", ended == "everything")
        engine = await start()
        assert "still in use" in ((await engine.get("stuck")).last_error or "")
        assert any("still in use" in line for line in engine.recovery_report)
        assert (await engine.get("good")).status == ("running" if ended == "everything" else "cold")
    assert await read(engine, world, "good") == "good"
    assert await read(engine, world, "stuck") == "stuck"


async def test_a_failed_step_is_settled_at_once(start: Start, world: World) -> None:
    engine = await start()

    def broken(*_: object) -> None:
        raise OSError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.pool, "create_disk", broken)
        with pytest.raises(OSError, match="no room"):
            await engine.create(CreateRequest("dev"))
    with pytest.raises(NotFound):
        await engine.get("dev")
    await engine.create(CreateRequest("dev"))


async def test_a_policy_that_did_not_get_through_is_in_force_after_a_restart(
    start: Start, world: World
) -> None:
    engine = await start()
    sprite_id = await prepared(engine, world, running=True)
    rules = [{"domain": "a.example", "action": "allow"}]
    world.box.fail_policies = True
    with pytest.raises(Unavailable, match="not in force yet"):
        await engine.policies.set("dev", "network", {"rules": rules})
    world.box.fail_policies = False
    await engine.close()
    assert world.box.specs[sprite_id].policies.network == []
    engine = await start()
    assert world.box.specs[sprite_id].policies.network == rules
    assert any("policies" in line for line in engine.recovery_report)
    assert await engine.policies.get("dev", "network") == {"rules": rules}
