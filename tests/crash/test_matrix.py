"""SIGKILL between every two steps of every change, of everybody who has a part in it; then a restart.

Afterwards the sprite is as it was before or as it should be after, as the client was told if it was
told anything; every acknowledged byte is there, in a tree of 10,000 files; the disk takes writes; and
nothing is left over, neither in the kernel nor in the pool. A test is one point and its victims, one
after the other: see ``Bench.strike``. Those that leave the server alive are looked at at once; after
the death of the server, and at the end in any case, another one starts, and all is looked at.
``docs/durability.md`` lists the points.
"""

from __future__ import annotations

import ast
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from crashing import Answer, Bench

import fault_points
import serving
import spriggan
from serving import until

# The points of each change, in the order in which they are passed.
CREATE = ["create:intent", "blank:subvolume", "blank:formatted", "blank:named", "create:disk", "create:done"]
SNAPSHOT = ["snapshot:draft", "snapshot:replayed", "snapshot:named"]
FORK = ["fork:intent", *SNAPSHOT, "fork:disk", "fork:done"]
CHECKPOINT = ["checkpoint:intent", *SNAPSHOT, "checkpoint:snapshot", "checkpoint:done"]
RESTORE_RUNNING = ["restore:intent", "restore:cloned", "restore:prepared"]
RESTORE_STOPPED = ["restore:stopped", "restore:kept", "swap:exchanged", "restore:swapped"]
RESTORE_STARTED = ["restore:started", "restore:retired", "restore:recorded", "restore:done"]
RESTORE = [*RESTORE_RUNNING, *RESTORE_STOPPED, *RESTORE_STARTED]
RESTORE_BACK = ["restore:back"]
STOP_BOX = [
    "stop:killed",
    "stop:detached",
    "stop:cgroups",
    "stop:files",
    "stop:box",
    "stop:uplink",
    "stop:done",
]
STOP = ["stop:inner", *STOP_BOX]
RETIRE = [
    "destroy:stop",
    "retire:checkpoints",
    "retire:unsealed",
    "destroy:disk",
    "destroy:files",
    "destroy:done",
]
DESTROY = ["destroy:intent", *STOP_BOX, *RETIRE]
DELETE = ["delete_checkpoint:intent", "retire:unsealed", "delete_checkpoint:disk", "delete_checkpoint:done"]
TRASH = ["trash:deleted"]
UPLINK = ["uplink:namespace", "uplink:pair", "uplink:host", "wake:uplink"]
WAKE = ["wake:slot", "wake:layers", *UPLINK, "start:cgroups", "start:prepared"]
WAKE_FORKED = ["start:forked", "start:reported", "wake:box", "wake:done"]
ZYGOTE = ["zygote:loaded", "zygote:forked", "zygote:replied"]
PILOT = ["pilot:cgroup", "pilot:namespaces", "pilot:router", "keeper:started", "pilot:keeper"]
PILOT_STARTS = ["pilot:disk", "pilot:root", "pilot:container"]
PILOT_SERVES = ["pilot:ready", "pilot:reported"]
PILOT_STOPS = ["pilot:ended", "pilot:dismantled"]
# See test_spare_killed.py.
SPARES = ["spare:disk", "pilot:spare", "spare:box", "create:spare", "take:spec", "pilot:named", "wake:spare"]
REVIVE = ["revive:cleared", "pilot:adopted"]
WARMTH = ["rest:frozen", "wake:thawed"]
PILOT_RETIRES = ["pilot:noted", "pilot:retired"]
RETIREMENT = [*PILOT_RETIRES, "rest:retired"]
RECOVERY = ["recovery:found", "recovery:settled"]
FIRST_START = ["file:written", "volume:formatted", "volume:made", "volume:mounted", "token:written"]

EXEC = "/exec?cmd=true"
numbers = itertools.count(2)


def points(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("point", names)


@pytest.fixture(scope="module")
def prepared() -> Iterator[Bench]:
    with serving.server() as server:
        made = Bench(server)
        try:
            made.prepare()
            yield made
        finally:
            made.disarm()


@pytest.fixture
def bench(prepared: Bench) -> Bench:
    prepared.ready()
    return prepared


def subject(bench: Bench, name: str) -> str:
    """A running sprite with the tree and a checkpoint v2 of the state "base"."""
    if bench.get(f"/{name}") is None:
        bench.fork(name)
        bench.write(name, "base")
        bench.must("POST", f"/{name}/checkpoint")
    bench.write(name, "ready")
    return name


def explained(bench: Bench, name: str, answer: Answer, *, done: bool, silent: bool = False) -> None:
    """The client was told what is, or nothing: then ``last_error`` or the log says what became of it."""
    if answer.ok is not None:
        assert answer.ok == done, answer
        return
    row = bench.get(f"/{name}")
    said = str(row["last_error"]) if row else bench.log
    assert silent or ("finished" if done else "undid") in said, (said, bench.log)


def server_died(bench: Bench, victim: str, point: str) -> bool:
    """Whether to look at what a restart makes of it; starts one."""
    at_its_own = point.partition(":")[0] not in ("pilot", "keeper", "zygote")
    if "server" in victim or (victim == "itself" and at_its_own):
        bench.restart()
        return True
    return False


@points(*CREATE)
def test_create(bench: Bench, point: str) -> None:
    before = bench.held()
    body = {"name": "created", "config": {"storage_gb": next(numbers)}}
    answer = bench.strike(point, "itself", "created", lambda: bench.request("POST", "", body))
    bench.restart()
    done = bench.get("/created") is not None
    assert done == (point == "create:done")
    explained(bench, "created", answer, done=done, silent=done)
    if not done:
        bench.must("POST", "", body)
    assert bench.run("created", "ls && echo works") == "works"
    bench.must("DELETE", "/created")
    bench.nothing_left(before)


@points(*CHECKPOINT)
def test_checkpoint(bench: Bench, point: str) -> None:
    name = subject(bench, "kept")
    before = bench.held()
    for victim in ("pilot", "init", "itself"):
        state, known = f"{point}/{victim}", bench.checkpoints(name)
        bench.write(name, state)
        answer = bench.strike(point, victim, name, lambda: bench.request("POST", "/kept/checkpoint"))
        died = server_died(bench, victim, point)
        made = [each for each in bench.checkpoints(name) if each not in known]
        explained(bench, name, answer, done=bool(made), silent=point == "checkpoint:done")
        assert bench.read(name, whole=died, patient=victim == "init") == state
        assert bench.lives(name) == (victim != "init")
        if made:
            bench.fork("copy", of=name, checkpoint=made[0])
            assert bench.read("copy", whole=died) == state
            bench.must("DELETE", "/copy")
        bench.must("POST", "/kept/checkpoint")
    bench.nothing_left(before)


@points(*FORK)
def test_fork(bench: Bench, point: str) -> None:
    name = subject(bench, "parent")
    before = bench.held()
    for victim in ("pilot", "init", "itself"):
        state = f"{point}/{victim}"
        bench.write(name, state)
        body = {"name": "child"}
        answer = bench.strike(
            point, victim, name, lambda body=body: bench.request("POST", "/parent/fork", body)
        )
        died = server_died(bench, victim, point)
        done = bench.get("/child") is not None
        explained(bench, "child", answer, done=done, silent=done)
        assert bench.read(name, whole=died, patient=victim == "init") == state
        assert bench.lives(name) == (victim != "init")
        if not done:
            bench.fork("child", of=name, checkpoint=None)
        assert bench.read("child", whole=died) == state
        bench.must("DELETE", "/child")
    bench.nothing_left(before)


def restore_victims(point: str) -> list[str]:
    if point in PILOT_STOPS + PILOT_STARTS:
        return ["itself", "server"]
    return ["pilot", "itself"] if point in RESTORE_STOPPED else ["pilot", "init", "itself"]


@points(*RESTORE, *PILOT_STOPS, *PILOT_STARTS)
def test_restore(bench: Bench, point: str) -> None:
    subject(bench, "restored")
    before = bench.held()
    for victim in restore_victims(point):
        bench.write("restored", f"{point}/{victim}")
        check_restore(bench, point, victim, f"{point}/{victim}")
    bench.nothing_left(before)


@points(*(point for point in RESTORE if point != "restore:stopped"))
def test_restore_of_a_cold_sprite(bench: Bench, point: str) -> None:
    subject(bench, "restored")
    before = bench.held()
    bench.write("restored", f"cold {point}")
    bench.must("POST", "/restored/stop")
    check_restore(bench, point, "itself", f"cold {point}")
    bench.nothing_left(before)


def test_restore_of_a_sprite_that_has_just_ended(bench: Bench) -> None:
    """Its pilot, which would have gone a moment later, stays with the restored one."""
    subject(bench, "restored")
    before = bench.held()
    answer = Answer(None, "")
    for _ in range(5):  # on a busy machine that moment may be over
        bench.write("restored", "ends")
        pilot = bench.pids_of("pilot", "restored")
        answer = bench.strike(
            "restore:prepared",
            "init",
            "restored",
            lambda: bench.request("POST", "/restored/checkpoints/v1/restore"),
        )
        if answer.ok:
            time.sleep(1)
            assert bench.pids_of("pilot", "restored") == pilot
            assert bench.get("/restored")["last_error"] is None
            assert bench.read("restored", whole=False) == "base"
            break
        bench.read("restored", whole=False, patient=True)
    assert answer.ok, answer
    bench.nothing_left(before)


def check_restore(bench: Bench, point: str, victim: str, state: str) -> None:
    known, path = bench.checkpoints("restored"), "/restored/checkpoints/v1/restore"
    answer = bench.strike(point, victim, "restored", lambda: bench.request("POST", path))
    died = server_died(bench, victim, point)
    made = [each for each in bench.checkpoints("restored") if each not in known]
    silent = point in ("restore:recorded", "restore:done")
    explained(bench, "restored", answer, done=bool(made), silent=silent)
    if victim == "pilot" and not made:
        assert "pilot" in bench.get("/restored")["last_error"]
    assert bench.read("restored", whole=died, patient=victim == "init") == ("base" if made else state)
    if made:  # the disk as it was
        bench.fork("copy", of="restored", checkpoint=made[0])
        assert bench.read("copy", whole=False) == state
        bench.must("DELETE", "/copy")


@points(*RESTORE_BACK)
def test_restore_that_fails_and_is_killed_while_it_goes_back(bench: Bench, point: str) -> None:
    """The pilot dies, so the restored disk does not start; the old one is put back, and then the server dies."""
    subject(bench, "restored")
    before, known = bench.held(), bench.checkpoints("restored")
    bench.write("restored", "goes back")

    def work() -> Answer:
        return bench.request("POST", "/restored/checkpoints/v1/restore")

    answer = bench.strike("restore:swapped", "pilot", "restored", work, meanwhile=lambda: bench.arm(point))
    bench.restart()
    assert bench.checkpoints("restored") == known
    explained(bench, "restored", answer, done=False)
    assert bench.read("restored") == "goes back"
    bench.nothing_left(before)


@points(*DESTROY)
def test_destroy(bench: Bench, point: str) -> None:
    before = bench.held()
    for victim in ["pilot", "init", "itself"] if point == "destroy:intent" else ["itself"]:
        bench.fork("gone")
        bench.write("gone", "to be destroyed")
        bench.must("POST", "/gone/checkpoint")
        answer = bench.strike(point, victim, "gone", lambda: bench.request("DELETE", "/gone"))
        server_died(bench, victim, point)
        assert bench.get("/gone") is None
        explained(bench, "gone", answer, done=True, silent=point == "destroy:done")
    bench.nothing_left(before)


@points(*DELETE)
def test_delete_checkpoint(bench: Bench, point: str) -> None:
    name = subject(bench, "kept")
    before = bench.held()
    for victim in ("pilot", "init", "itself"):
        bench.write(name, f"{point}/{victim}")
        bench.must("POST", "/kept/checkpoint")
        old, *_, new = bench.checkpoints(name)
        path = f"/kept/checkpoints/{old}"
        answer = bench.strike(point, victim, name, lambda path=path: bench.request("DELETE", path))
        died = server_died(bench, victim, point)
        left = bench.checkpoints(name)
        assert old not in left and new in left
        explained(bench, name, answer, done=True, silent=point == "delete_checkpoint:done")
        assert bench.read(name, whole=died, patient=victim == "init") == f"{point}/{victim}"
        assert bench.lives(name) == (victim != "init")
    bench.nothing_left(before)


@points(*TRASH)
def test_trash_that_is_half_emptied(bench: Bench, point: str) -> None:
    before = bench.held()
    bench.fork("gone")

    def work() -> Answer:
        bench.request("DELETE", "/gone")  # answered or not: the trash is emptied in the background
        until(lambda: not bench.server.alive, what="the server to die over the trash")
        return Answer(None, "")

    bench.strike(point, "itself", "gone", work)
    bench.restart()
    bench.nothing_left(before)


@points(*STOP, *PILOT_STOPS)
def test_stop(bench: Bench, point: str) -> None:
    name = subject(bench, "stopped")
    before = bench.held()
    victims = {"stop:inner": ["pilot", "itself"], **{each: ["itself", "server"] for each in PILOT_STOPS}}
    for victim in victims.get(point, ["itself"]):
        bench.write(name, f"{point}/{victim}")
        answer = bench.strike(point, victim, name, lambda: bench.request("POST", "/stopped/stop"))
        assert server_died(bench, victim, point) or answer.ok, answer
        assert bench.get("/stopped")["status"] == "cold"
        assert bench.read(name, whole=victim == "itself") == f"{point}/{victim}"
    bench.nothing_left(before)


def wake_victims(point: str) -> list[str]:
    if point in WAKE:
        return ["itself"]
    if point in WAKE_FORKED:
        return (
            ["zygote", "pilot", "itself"]
            if point == "start:forked"
            else ["zygote", "pilot", "init", "itself"]
        )
    return [*([] if point in ZYGOTE else ["zygote"]), "itself", "server", "server+restart"]


@points(*WAKE, *WAKE_FORKED, *ZYGOTE, *PILOT, *PILOT_STARTS, *PILOT_SERVES)
def test_wake(bench: Bench, point: str) -> None:
    name = subject(bench, "woken")
    before = bench.held()
    for victim in wake_victims(point):
        bench.write(name, f"{point}/{victim}")
        bench.must("POST", "/woken/stop")
        if point == "zygote:loaded":
            bench.kill("zygote", name)  # so that a new one is wanted
        answer = bench.strike(point, victim, name, lambda: bench.request("POST", f"/woken{EXEC}"))
        if victim == "zygote" or (victim == "itself" and point in ("zygote:loaded", "zygote:forked")):
            assert answer.ok, answer  # another one is asked
        died = server_died(bench, victim, point)
        assert bench.read(name, whole=died, patient=victim == "init") == f"{point}/{victim}"
    bench.nothing_left(before)


@points(*REVIVE)
def test_revive(bench: Bench, point: str) -> None:
    name = subject(bench, "revived")
    before = bench.held()
    for victim in ["init", "itself"] if point == "revive:cleared" else ["init", "itself", "server"]:
        bench.write(name, f"{point}/{victim}")
        bench.kill("pilot", name)
        bench.strike(point, victim, name, lambda: bench.request("POST", f"/revived{EXEC}"))
        server_died(bench, victim, point)
        assert bench.read(name, whole=False, patient=victim == "init") == f"{point}/{victim}"
        said = bench.get("/revived")["last_error"]
        # A pilot that had taken over before it saw init's end lets the sprite live until that is noticed.
        assert "pilot" in said or (victim == "init" and "first process" in said), said
        # A pilot that dies while it takes over is the only loss of processes here but that of init.
        assert bench.lives(name) == (victim != "init" and (point, victim) != ("pilot:adopted", "itself"))
    bench.nothing_left(before)


KEEP = "echo kept > /dev/shm/kept"


def idler(bench: Bench) -> str:
    """A sprite in which nothing runs, with something in memory, under a server that soon lets pilots go."""
    bench.restart("--retire", "0.5", "--idle", "3600")
    if bench.get("/idler") is None:
        bench.fork("idler")
        bench.run("idler", KEEP)
    return "idler"


def retired(bench: Bench) -> Answer:
    until(lambda: not bench.server.alive or not bench.pids_of("pilot", "idler"), what="the pilot to retire")
    return Answer(None, "")


@points(*RETIREMENT)
def test_retirement(bench: Bench, point: str) -> None:
    name = idler(bench)
    before = bench.held()
    for victim in ["init", "itself", *(["server", "pilot"] if point in PILOT_RETIRES else [])]:
        bench.run(name, f"echo {point}/{victim} > synced; cp synced loose")
        bench.strike(point, victim, name, lambda: retired(bench))
        if server_died(bench, victim, point):
            idler(bench)
        if victim == "init":
            until(lambda: bench.get("/idler")["last_error"], what="the end to be noticed")
        assert bench.read(name, whole=False, patient=victim == "init") == f"{point}/{victim}"
        assert (bench.run(name, "cat /dev/shm/kept || true") == "kept") == (victim != "init")
        if victim != "init":
            # Before it has written down that it retires, its end is a death; after that nobody lost anything.
            died = point == "pilot:noted" and victim in ("itself", "pilot")
            assert bool(bench.get("/idler")["last_error"]) == died
        bench.must("POST", "/idler/restart")
        bench.run(name, KEEP)
    bench.nothing_left(before)


@points(*REVIVE, "start:forked", "start:reported")
def test_revive_of_a_retired_one(bench: Bench, point: str) -> None:
    name = idler(bench)
    before = bench.held()
    more = {"revive:cleared": [], "pilot:adopted": ["server"]}
    for victim in ["init", "itself", *more.get(point, ["pilot", "zygote"])]:
        bench.run(name, f"echo {point}/{victim} > synced; cp synced loose")
        retired(bench)
        bench.strike(point, victim, name, lambda: bench.request("POST", f"/idler{EXEC}"))
        if server_died(bench, victim, point):
            idler(bench)
        assert bench.read(name, whole=False, patient=True) == f"{point}/{victim}"
        # A pilot that dies while it takes over is the only loss but that of init.
        ended = victim == "init" or (point, victim) == ("pilot:adopted", "itself")
        kept = bench.run(name, "cat /dev/shm/kept || true") == "kept"
        # One that has just been forked may have taken over by the time it is killed, or not.
        assert kept != ended or (point, victim) == ("start:forked", "pilot")
        bench.must("POST", "/idler/restart")
        bench.run(name, KEEP)
    bench.nothing_left(before)


@points(*WARMTH)
def test_warmth(bench: Bench, point: str) -> None:
    bench.restart("--idle", "1")
    name = subject(bench, "idle")
    before = bench.held()

    def rest() -> Answer:
        until(lambda: not bench.server.alive or is_warm(bench), what="the sprite to rest")
        return Answer(None, "")

    def wake() -> Answer:
        return bench.request("POST", f"/idle{EXEC}")

    for victim in ("pilot", "init", "itself"):
        bench.write(name, f"{point}/{victim}")
        if point == "wake:thawed":
            rest()
        bench.strike(point, victim, name, rest if point == "rest:frozen" else wake)
        server_died(bench, victim, point)
        assert bench.read(name, whole=False, patient=victim == "init") == f"{point}/{victim}"
        assert bench.lives(name) == (victim != "init")
    bench.nothing_left(before)


def is_warm(bench: Bench) -> bool:
    time.sleep(0.02)
    try:
        return bool(bench.get("/idle")["status"] == "warm")
    except httpx.TransportError:
        return False


@points(*RECOVERY)
def test_recovery_itself_is_killed(bench: Bench, point: str) -> None:
    subject(bench, "restored")
    before, known = bench.held(), bench.checkpoints("restored")
    bench.write("restored", point)
    path = "/restored/checkpoints/v1/restore"
    bench.strike("restore:swapped", "itself", "restored", lambda: bench.request("POST", path))
    bench.arm(point)
    with pytest.raises(AssertionError, match="does not start"):
        bench.start()
    bench.start()
    [made] = [each for each in bench.checkpoints("restored") if each not in known]
    assert bench.read("restored") == "base"
    bench.fork("copy", of="restored", checkpoint=made)
    assert bench.read("copy") == point
    bench.must("DELETE", "/copy")
    bench.nothing_left(before)


@pytest.mark.parametrize(
    "change", ["create", "checkpoint", "fork", "restore", "delete_checkpoint", "destroy"]
)
def test_the_zygote_is_killed_at_every_point(bench: Bench, change: str) -> None:
    """It has no part in these, so each succeeds; one restart for all points of a change."""
    name = subject(bench, "quiet")
    bench.write(name, change)
    before = bench.held()
    passed = {
        "create": CREATE,
        "checkpoint": CHECKPOINT,
        "fork": FORK,
        "restore": RESTORE,
        "delete_checkpoint": DELETE,
        "destroy": DESTROY,
    }
    for point in passed[change]:
        bench.fork("spare")  # its wake sees to it that there is a zygote
        bench.run("spare", "true")
        answer = bench.strike(point, "zygote", name, lambda: with_a_spare(bench, change))
        assert answer.ok, (point, answer)
        if bench.get("/spare"):
            bench.must("DELETE", "/spare")
        if bench.get("/extra"):
            bench.must("DELETE", "/extra")
    bench.restart()
    assert bench.read(name) == ("base" if change == "restore" else change)
    bench.nothing_left(before)


def with_a_spare(bench: Bench, change: str) -> Answer:
    if change == "create":
        return bench.request("POST", "", {"name": "extra", "config": {"storage_gb": next(numbers)}})
    if change == "fork":
        return bench.request("POST", "/quiet/fork", {"name": "extra"})
    if change == "checkpoint":
        return bench.request("POST", "/quiet/checkpoint")
    if change == "restore":
        return bench.request("POST", "/quiet/checkpoints/v1/restore")
    if change == "destroy":
        return bench.request("DELETE", "/spare")
    bench.must("POST", "/quiet/checkpoint")
    return bench.request("DELETE", f"/quiet/checkpoints/{bench.checkpoints('quiet')[-2]}")


@points(*FIRST_START)
def test_the_first_start_is_killed(point: str) -> None:
    with serving.server() as server:
        with pytest.raises(AssertionError, match="does not start"):
            server.start(SPRIGGAN_FAULT=point)
        server.start()
        assert serving.run(server.client().create_sprite("first"), "echo works") == "works"
        assert not [path for path in server.data.iterdir() if path.name.endswith(".new")]


def test_every_point_has_its_rows() -> None:
    """The lists above hold the points of the whole product, and the documentation holds them, too."""
    listed = {point for name, found in globals().items() if name.isupper() for point in found if ":" in point}
    passed = set()
    package = Path(spriggan.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "faults.point":
                [name] = node.args
                assert isinstance(name, ast.Constant), f"{path}: the name of a point is not a literal"
                passed.add(name.value)
    assert listed == passed
    assert set(fault_points.POINTS) <= passed
    text = (package.parents[1] / "docs" / "durability.md").read_text()
    assert [point for point in sorted(passed) if f"`{point}`" not in text] == []
