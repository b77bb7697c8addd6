"""Pilots that nobody needs end, and nobody notices: their sprites go on as if one had been there all the time."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sprites import ExecError
from sprites.services import get_service, start_service, stop_service
from websockets.sync.client import connect

import holdings
import serving
from serving import until
from spriggan.linux import process
from spriggan.server import attention

SOON_S = 0.4
STEADY_S = 2.0  # several times as long as a pilot stays that is not needed
OPTIONS = ("--retire", str(SOON_S), "--idle", "3600")
# A lookup that a policy may refuse, and a connection that it may.
REACH = "getent ahosts denied.example > /dev/null; python3 -c "
REACH += "'import socket; socket.create_connection((\"203.0.113.1\", 80), timeout=1)' 2>&1 | tail -1"

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def hasty() -> Iterator[serving.Server]:
    """A server that soon lets pilots go."""
    with serving.server() as found:
        found.start(*OPTIONS)
        yield found


@pytest.fixture
def idler(hasty: serving.Server) -> Iterator[Any]:
    made = hasty.client().create_sprite(f"idler{next(_numbers)}")
    yield made
    made.delete()


def shown(server: serving.Server, name: str) -> dict[str, Any]:
    with server.http() as http:
        found: dict[str, Any] = http.get(f"/v1/sprites/{name}").json()
    return found


def pilot(server: serving.Server, name: str) -> int | None:
    """The living pilot of a sprite."""
    return process.written_down(serving.run_directory(server, name) / "pilot")


def retired(server: serving.Server, name: str) -> None:
    """Wait until a sprite does without its pilot."""
    until(lambda: pilot(server, name) is None, what=f"the pilot of {name} to retire")


def stays(server: serving.Server, name: str) -> None:
    """Require that a pilot is needed."""
    first = pilot(server, name)
    end = time.monotonic() + STEADY_S
    while time.monotonic() < end:
        assert first is not None and pilot(server, name) == first
        time.sleep(0.1)


def unharmed(server: serving.Server, name: str) -> None:
    """Nobody has noticed anything."""
    assert shown(server, name)["last_error"] is None


def test_an_idle_sprite_has_no_pilot_and_shows_nothing_of_it(hasty: serving.Server, idler: Any) -> None:
    serving.run(idler, "echo kept > file; echo memory > /dev/shm/file; sudo hostname changed")
    name, first = idler.name, pilot(hasty, idler.name)
    (idler.filesystem("/home/sprite") / "other").write_text("by the files API")
    retired(hasty, name)
    identity = shown(hasty, name)["id"]

    def names() -> list[str]:
        here = [pid for pid in holdings.processes(hasty) if holdings.within(identity, pid)]
        return sorted(map(holdings.comm, here))

    until(lambda: names() == ["sleep", "tail", "tini"], what="all of the pilot to be gone")
    for _ in range(3):  # looking starts nothing
        status = shown(hasty, name)
        assert (status["status"], status["awake_because"], status["last_error"]) == ("running", [], None)
        with hasty.http() as http:
            assert http.get(f"/v1/sprites/{name}/check").json()["status"] == "healthy"
            assert name in [each["name"] for each in http.get("/v1/sprites").json()["sprites"]]
        time.sleep(SOON_S)
    assert pilot(hasty, name) is None
    kept = "cat file /dev/shm/file other && echo && hostname"
    assert serving.run(idler, kept) == "kept\nmemory\nby the files API\nchanged"
    assert pilot(hasty, name) not in (None, first)
    assert serving.run(idler, "getent hosts deb.debian.org > /dev/null && echo found") == "found"
    assert serving.run(idler, "sprite-env info | jq -r .name") == name
    unharmed(hasty, name)


def test_ended_sessions_can_be_read_as_before(hasty: serving.Server, idler: Any) -> None:
    name, path = idler.name, f"/v1/sprites/{idler.name}/exec"
    with hasty.http() as http:
        small = http.post(path, params={"cmd": ["sh", "-c", "echo $$; echo error >&2; exit 7"]}).content
        number = small[1:].split(b"\n")[0].decode()
        large = http.post(path, params={"cmd": ["sh", "-c", "echo $$; seq 500000"]}).content
        second = large[1:].split(b"\n")[0].decode()
    whole = "".join(f"{line}\n" for line in [second, *range(1, 500001)]).encode()
    for _ in range(3):
        retired(hasty, name)
        for session, output, code in ((number, f"{number}\n".encode(), 7), (second, whole, 0)):
            again = idler.attach_session(session)
            again.stdout = out = io.BytesIO()
            with contextlib.suppress(ExecError):  # which tells of any code but 0
                again.run()
            assert (out.getvalue(), again.exit_code) == (output, code)
    retired(hasty, name)
    with hasty.http() as http:
        assert http.get(path).json() == {"count": 0, "sessions": []}
        assert http.post(f"{path}/{number}/kill").status_code == 410
        assert http.post(f"{path}/99999/kill").status_code == 404
    spools = hasty.data / "spool" / shown(hasty, name)["id"]
    assert len(list(spools.iterdir())) == 2
    unharmed(hasty, name)


def test_a_process_in_the_background_keeps_its_pilot(hasty: serving.Server, idler: Any) -> None:
    asks = "getent hosts deb.debian.org && curl -s --unix-socket /.sprite/api.sock http://x/v1/info"
    serving.run(
        idler, f"(sleep {STEADY_S + 1}; {{ {asks}; }} > asked 2>&1; echo done > end) > /dev/null 2>&1 &"
    )
    stays(hasty, idler.name)
    (idler.filesystem("/home/sprite") / "looked").write_text("once")
    until(lambda: serving.run(idler, "cat end || true") == "done", what="the background to have asked")
    answers = serving.run(idler, "cat asked")
    assert "debian" in answers and f'"name":"{idler.name}"' in answers
    retired(hasty, idler.name)
    unharmed(hasty, idler.name)


def test_whoever_is_connected_keeps_the_pilot(hasty: serving.Server, idler: Any) -> None:
    url = f"{hasty.url.replace('http', 'ws')}/v1/sprites/{idler.name}"
    headers = {"Authorization": f"Bearer {hasty.token}"}
    with connect(f"{url}/ports/watch", additional_headers=headers):
        stays(hasty, idler.name)
    retired(hasty, idler.name)
    with connect(f"{url}/control", additional_headers=headers):
        time.sleep(attention.HOLD_S)  # from here on the server holds the sprite no more
        stays(hasty, idler.name)
    retired(hasty, idler.name)
    unharmed(hasty, idler.name)


def test_a_task_and_a_checkpoint_that_is_looked_at_keep_the_pilot(hasty: serving.Server, idler: Any) -> None:
    serving.run(idler, "echo old > file && sync")
    serving.finished(idler.create_checkpoint())
    serving.run(idler, "sprite-env tasks create build --expire 10m")
    stays(hasty, idler.name)
    serving.run(idler, "sprite-env tasks delete build; cat /.sprite/checkpoints/v1/home/sprite/file")
    stays(hasty, idler.name)
    serving.run(idler, "sprite-env checkpoints unmount v1")
    retired(hasty, idler.name)
    assert serving.run(idler, "cat /.sprite/checkpoints/v1/home/sprite/file") == "old"
    serving.run(idler, "sprite-env checkpoints unmount v1")
    unharmed(hasty, idler.name)


def test_services_are_the_same_afterwards(hasty: serving.Server, idler: Any) -> None:
    idler.create_service("steady", "sleep", ["1000"], duration=0.1)
    idler.create_service("breaks", "sh", ["-c", "sleep 0.1; exit 3"], duration=0.1)
    until(lambda: get_service(idler, "breaks").state.restart_count >= 1, what="a service to be started again")
    stays(hasty, idler.name)
    stop_service(idler, "breaks")
    stays(hasty, idler.name)  # the steady one still runs
    stop_service(idler, "steady")
    before = [get_service(idler, name).state for name in ("breaks", "steady")]
    assert [each.status for each in before] == ["stopped", "stopped"] and before[0].restart_count >= 1
    retired(hasty, idler.name)
    assert [get_service(idler, name).state for name in ("breaks", "steady")] == before
    retired(hasty, idler.name)
    assert [get_service(idler, name).state for name in ("breaks", "steady")] == before
    assert serving.run(idler, "pgrep -xc sleep || true") == "0"
    start_service(idler, "steady", duration=0.1)
    assert get_service(idler, "steady").state.status == "running"
    unharmed(hasty, idler.name)


def test_a_network_policy_holds_beyond_it_and_can_be_set_without_a_pilot(
    hasty: serving.Server, idler: Any
) -> None:
    name, path = idler.name, f"/v1/sprites/{idler.name}/policy"
    rules = {"rules": [{"domain": "allowed.example", "action": "allow"}]}
    free = serving.run(idler, REACH)
    retired(hasty, name)
    with hasty.http() as http:
        assert http.post(f"{path}/network", json=rules).status_code == 204
        walled = serving.run(idler, REACH)
        assert walled != free
        retired(hasty, name)
        assert serving.run(idler, REACH) == walled
        retired(hasty, name)
        limit = {"memory": {"limit_mb": 512, "autoscale": False}}
        assert http.post(f"{path}/resources", json=limit).status_code == 204
        assert pilot(hasty, name) is None  # which that does not need
        assert http.post(f"{path}/privileges", json={"profile": "standard"}).status_code == 204
        retired(hasty, name)
        assert serving.run(idler, "sprite-env info | jq .memory_mb") == "512"
        assert http.get(f"{path}/privileges").json()["profile"] == "standard"
        assert http.post(f"{path}/network", json={"rules": []}).status_code == 204
    retired(hasty, name)
    assert serving.run(idler, REACH) == free
    unharmed(hasty, name)


def test_every_change_of_a_sprite_without_a_pilot(hasty: serving.Server, idler: Any) -> None:
    name, path = idler.name, f"/v1/sprites/{idler.name}"
    serving.run(idler, "echo one > file")
    retired(hasty, name)
    serving.finished(idler.create_checkpoint())
    assert pilot(hasty, name) is None  # nor does a checkpoint need one
    with hasty.http() as http:
        assert http.post(f"{path}/fork", json={"name": f"{name}-fork"}).status_code == 201
        fork = hasty.client().sprite(f"{name}-fork")
        assert serving.run(fork, "cat file") == "one"
        retired(hasty, fork.name)
        fork.delete()
        serving.run(idler, "echo two > file")
        retired(hasty, name)
        serving.finished(idler.restore_checkpoint("v1"))
        assert serving.run(idler, "cat file") == "one"
        retired(hasty, name)
        for action in ("restart", "stop"):
            assert http.post(f"{path}/{action}").status_code == 200
            assert serving.run(idler, "cat file") == "one"
            retired(hasty, name)
        assert hasty.cli("upgrade", "-s", name).returncode == 0
        assert serving.run(idler, "cat file") == "one"
    unharmed(hasty, name)


def test_another_server_finds_sprites_without_pilots_and_leaves_them_so(hasty: serving.Server) -> None:
    client, names = hasty.client(), ["left1", "left2", "left3"]
    for name in names:
        serving.run(client.create_sprite(name), f"echo {name} > file; echo {name} > /dev/shm/file")
    for name in names:
        retired(hasty, name)
    hasty.kill()
    hasty.start(*OPTIONS)
    for name in names:
        assert shown(hasty, name)["status"] == "running"
    time.sleep(STEADY_S)
    assert [pilot(hasty, name) for name in names] == [None, None, None]
    for name in names:
        sprite = hasty.client().sprite(name)
        assert serving.run(sprite, "cat file /dev/shm/file") == f"{name}\n{name}"
        unharmed(hasty, name)
        sprite.delete()


def test_warm_sprites_have_no_pilot_either_whatever_stands_still_in_them() -> None:
    loop = "i=0; while :; do i=$((i+1)); getent hosts deb.debian.org && echo $i > count; sleep 0.1; done"
    with serving.server() as own:
        own.start("--idle", "1.5", "--retire", "0.5")
        sprite = own.client().create_sprite("rests")
        serving.run(sprite, f"setsid sh -c '{loop}' > /dev/null 2>&1 < /dev/null & echo $! > pid")

        def asleep() -> bool:
            return shown(own, "rests")["status"] == "warm" and pilot(own, "rests") is None

        counts = []
        for _ in range(3):
            until(asleep, what="a warm sprite without a pilot")
            serving.run(sprite, "kill -0 $(cat pid) && rm -f count && until [ -s count ]; do sleep 0.1; done")
            counts.append(int(serving.run(sprite, "cat count")))
        assert counts == sorted(set(counts))
        until(asleep, what="a warm sprite without a pilot")
        serving.finished(sprite.create_checkpoint())
        serving.finished(sprite.restore_checkpoint("v1"))
        serving.run(sprite, "trap 'echo heard > ended' TERM; (trap 'echo heard > ended; exit' TERM; touch up; "
        "while :; do sleep 0.1; done) > /dev/null 2>&1 & until [ -e up ]; do sleep 0.05; done")  # fmt: skip
        until(asleep, what="a warm sprite without a pilot")
        unharmed(own, "rests")
        own.cli("stop", "rests")  # they are asked to end, and hear it
        assert serving.run(sprite, "cat ended") == "heard"
        unharmed(own, "rests")


def test_what_dies_without_a_pilot_is_noticed(hasty: serving.Server, idler: Any) -> None:
    serving.run(idler, "echo kept > file; sync")
    retired(hasty, idler.name)
    init = process.written_down(serving.run_directory(hasty, idler.name) / "init")
    assert init is not None
    os.kill(init, signal.SIGKILL)
    until(lambda: shown(hasty, idler.name)["status"] == "cold", what="the sprite to be cold")
    assert shown(hasty, idler.name)["last_error"] == "its first process ended"
    assert serving.run(idler, "cat file") == "kept"
    retired(hasty, idler.name)
    [keeper] = [
        pid
        for pid in holdings.processes(hasty)
        if holdings.within(shown(hasty, idler.name)["id"], pid) and holdings.comm(pid) == "sleep"
    ]
    os.kill(keeper, signal.SIGKILL)
    until(lambda: shown(hasty, idler.name)["status"] == "cold", what="the sprite to be cold")
    assert "namespaces" in shown(hasty, idler.name)["last_error"]
    assert serving.run(idler, "cat file") == "kept"


def test_commands_at_the_moment_of_retirement_all_succeed() -> None:
    """Fifty at once, again and again, each time as the pilot is about to end or has just done so."""
    with serving.server() as own:
        own.start("--retire", "0.1", "--idle", "3600")
        sprite = own.client().create_sprite("busy")
        serving.run(sprite, "true")
        pilots: set[int | None] = set()

        def once(number: int) -> str:
            return serving.run(sprite, f"echo {number}; cat /dev/shm/here 2> /dev/null || true")

        with ThreadPoolExecutor(50) as pool:
            for each in range(20):
                first = pilot(own, "busy")
                pilots.add(first)
                end = time.monotonic() + 0.1 * (each % 4)
                while first is not None and pilot(own, "busy") == first and time.monotonic() < end:
                    time.sleep(0.002)
                assert list(pool.map(once, range(50))) == [str(number) for number in range(50)]
        assert len(pilots) > 2
        unharmed(own, "busy")


def test_looking_does_not_disturb_and_is_not_disturbed(hasty: serving.Server, idler: Any) -> None:
    """What is asked of a sprite without holding it, while its pilot comes and goes."""
    over, answers = threading.Event(), set()

    def look() -> None:
        with hasty.http() as http:
            while not over.is_set():
                answers.add(http.get(f"/v1/sprites/{idler.name}/check").json()["status"])
                answers.add(str(http.get(f"/v1/sprites/{idler.name}").json()["last_error"]))

    looking = [threading.Thread(target=look) for _ in range(4)]
    serving.run(idler, "true")
    for each in looking:
        each.start()
    try:
        for _ in range(5):
            retired(hasty, idler.name)
            serving.run(idler, "true")
    finally:
        over.set()
        for each in looking:
            each.join()
    assert answers == {"healthy", "None"}
