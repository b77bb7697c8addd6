"""Sessions: list, attach, replay, kill, several clients, slow clients."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from datetime import datetime
from typing import Any

import httpx
import pytest
from pilot_client import Done, Pilot, finish, query, take, until
from websockets.exceptions import InvalidStatus

MEGABYTE = 1 << 20
COUNT = 60  # MiB of output: several times what a session keeps


def sessions(http: httpx.Client) -> dict[str, dict[str, Any]]:
    listed = http.get("/exec").json()
    assert listed["count"] == len(listed["sessions"])
    return {session["id"]: session for session in listed["sessions"]}


def kill_all(http: httpx.Client) -> None:
    for id in sessions(http):
        http.post(f"/exec/{id}/kill?signal=KILL")


async def gone(http: httpx.Client, id: str, patience: float = 5) -> bool:
    for _ in range(int(patience / 0.1)):
        if id not in sessions(http):
            return True
        await asyncio.sleep(0.1)
    return False


async def detached(pilot: Pilot, script: str, **parameters: str) -> str:
    """Start a command, wait for its ``ready``, and leave it."""
    parameters = {"max_run_after_disconnect": "0"} | parameters
    async with pilot.connect(query("sh", "-c", f"echo ready; {script}", **parameters)) as socket:
        done = await until(socket, b"ready", tty=parameters.get("tty") == "true")
        return str(done.info["session_id"])


async def test_the_list_has_what_clients_read(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "exec sleep 61", dir="/tmp")
    await asyncio.sleep(0.2)
    session = sessions(http)[id]
    assert session["command"] == "sleep 61", "what it is now, not what it was"
    assert session["workdir"] == "/tmp"
    assert (session["is_active"], session["tty"]) == (False, False)
    assert isinstance(session["bytes_per_second"], float)
    for name in ("created", "last_activity"):
        datetime.fromisoformat(session[name])
    status = http.get("/pilot/status").json()
    assert status["protocol"] == 1
    assert f"session {id}" in status["reasons"]
    kill_all(http)


@pytest.mark.parametrize("form", ["/exec/{id}", "/exec?id={id}"])
async def test_attaching_replays_from_the_start(pilot: Pilot, http: httpx.Client, form: str) -> None:
    id = await detached(pilot, "echo err >&2; read line; echo got $line; exit 5")
    async with asyncio.timeout(30), pilot.connect(form.format(id=id)) as socket:
        first = json.loads(await socket.recv())
        assert first["type"] == "session_info"
        assert (first["session_id"], first["tty"]) == (id, False)
        await socket.send(b"\0hello\n")
        done = await finish(socket)
    assert (done.stdout, done.stderr, done.exit) == (b"ready\ngot hello\n", b"err\n", 5)


@pytest.mark.parametrize("path", ["/exec/nothing", "/exec?id=999999", "/exec/1%00"])
async def test_an_unknown_session_is_404(pilot: Pilot, path: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with pilot.connect(path):
            pass
    assert caught.value.response.status_code == 404
    assert json.loads(caught.value.response.body or b"")["hint"]


async def test_an_ended_session_can_still_be_read(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "sleep 0.2; echo last words; exit 9")
    assert await gone(http, id)
    async with asyncio.timeout(30), pilot.connect(f"/exec/{id}") as socket:
        done = await finish(socket)
    assert (done.stdout, done.exit) == (b"ready\nlast words\n", 9)
    assert http.post(f"/exec/{id}/kill").status_code == 410


async def test_all_attached_get_everything(pilot: Pilot) -> None:
    async with (
        asyncio.timeout(20),
        pilot.connect(query("sh", "-c", "echo ready; read x; seq 50000")) as owner,
    ):
        id = (await until(owner, b"ready\n")).info["session_id"]
        async with pilot.connect(f"/exec/{id}") as second, pilot.connect(f"/exec/{id}") as third:
            for other in (second, third):
                assert (await until(other, b"ready\n")).info["is_owner"] is False
            await owner.send(b"\0\n")
            ends = await asyncio.gather(finish(owner), finish(second), finish(third))
    assert {bytes(done.stdout) for done in ends} == {"".join(f"{n}\n" for n in range(1, 50001)).encode()}
    assert {done.exit for done in ends} == {0}


# Ending


@pytest.mark.parametrize("as_json", [True, False])
async def test_kill_in_both_forms(pilot: Pilot, http: httpx.Client, as_json: bool) -> None:
    id = await detached(pilot, "exec sleep 60")
    if as_json:
        answer = http.post(f"/exec/{id}/kill", json={"signal": "SIGTERM", "timeout": 5})
    else:
        answer = http.post(f"/exec/{id}/kill?signal=SIGTERM&timeout=5s")
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["type"] for line in lines] == ["signal", "exited", "complete"]
    assert lines[0]["signal"] == "SIGTERM"
    assert lines[-1]["exit_code"] == 143
    assert await gone(http, id)


async def test_kill_comes_to_kill(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "trap '' TERM; while :; do sleep 0.1; done")
    lines = [json.loads(line) for line in http.post(f"/exec/{id}/kill?timeout=500ms").text.splitlines()]
    assert [line["type"] for line in lines] == ["signal", "timeout", "killed", "complete"]
    assert lines[-1]["exit_code"] == 137


async def test_kill_with_no_timeout_only_signals(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "trap 'exit 6' HUP; while :; do sleep 0.1; done")
    lines = [
        json.loads(line) for line in http.post(f"/exec/{id}/kill?signal=HUP&timeout=0s").text.splitlines()
    ]
    assert lines[0]["type"] == "signal"
    assert not {"timeout", "killed"} & {line["type"] for line in lines}
    assert lines[-1]["type"] == "complete"
    assert lines[-1].get("exit_code") in (None, 6), "of a session that runs on there is no exit code"
    assert await gone(http, id)


@pytest.mark.parametrize(
    ("parameters", "body"),
    [
        ("signal=NOPE", None),
        ("signal=99", None),
        ("timeout=soon", None),
        ("timeout=-1s", None),
        ("timeout=9999h", None),
        ("", b"{"),
        ("", b"[]"),
        ("", b'{"signal": {}}'),
        ("", b'{"timeout": NaN}'),
        ("", b'{"timeout": 1e999}'),
        pytest.param("", b"[" * 100_000),
    ],
)
async def test_bad_kills_are_refused(
    pilot: Pilot, http: httpx.Client, parameters: str, body: bytes | None
) -> None:
    id = await detached(pilot, "sleep 60")
    try:
        answer = http.post(f"/exec/{id}/kill?{parameters}", content=body)
        assert answer.status_code == 400
        assert answer.json()["hint"]
        assert id in sessions(http)
    finally:
        kill_all(http)


def test_killing_nothing_is_404(pilot: Pilot, http: httpx.Client) -> None:
    assert http.post("/exec/nothing/kill").status_code == 404


async def test_a_command_outlives_its_client_for_as_long_as_asked(pilot: Pilot, http: httpx.Client) -> None:
    short = await detached(pilot, "exec sleep 60", max_run_after_disconnect="500ms")
    long = await detached(pilot, "exec sleep 60", max_run_after_disconnect="1m")
    terminal = await detached(pilot, "exec sleep 60", tty="true")
    assert {short, long, terminal} <= set(sessions(http))
    assert await gone(http, short, patience=3)
    assert {long, terminal} <= set(sessions(http))
    kill_all(http)


async def test_attaching_again_in_time_keeps_it(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "exec sleep 60", max_run_after_disconnect="700ms")
    async with pilot.connect(f"/exec/{id}"):
        await asyncio.sleep(1.5)
        assert id in sessions(http)
    assert await gone(http, id, patience=3)


# Much output, slow clients


async def test_the_only_client_misses_nothing_however_slow(pilot: Pilot) -> None:
    size = COUNT * MEGABYTE
    before = pilot.resident()
    options = {"max_queue": 4}
    async with (
        asyncio.timeout(60),
        pilot.connect(query("head", "-c", str(size), "/dev/zero"), **options) as socket,
    ):
        await asyncio.sleep(1.5)
        assert pilot.resident() - before < 8 * MEGABYTE, (
            "what a slow client does not take yet is not in memory"
        )
        received, done = 0, Done()
        async for message in socket:
            if isinstance(message, bytes) and message[0] == 1:
                received += len(message) - 1
            else:
                take(done, message, tty=False)
    assert received == size
    assert done.exit == 0
    assert "truncated" not in [text["type"] for text in done.texts]
    assert pilot.resident() - before < 8 * MEGABYTE


async def test_with_nobody_attached_the_newest_output_is_kept_and_the_loss_said(
    pilot: Pilot, http: httpx.Client
) -> None:
    script = f"sleep 0.3; head -c {COUNT * MEGABYTE} /dev/zero | tr '\\0' x; echo the end; sleep 60"
    id = await detached(pilot, script)
    await asyncio.sleep(4)
    async with asyncio.timeout(20), pilot.connect(f"/exec/{id}") as socket:
        done = await until(socket, b"the end\n")
    [said] = [text for text in done.texts if text["type"] == "truncated"]
    assert said["message"]
    assert b"not kept" in done.stderr
    kept = len(done.stdout)
    assert 14 * MEGABYTE < kept <= 17 * MEGABYTE
    assert abs(said["bytes"] + kept - COUNT * MEGABYTE) < MEGABYTE
    assert spooled(pilot) < 300 * MEGABYTE
    kill_all(http)


async def test_the_output_of_ended_sessions_is_bounded_for_all_of_them(
    pilot: Pilot, http: httpx.Client
) -> None:
    """Each of these keeps some 16 MiB, and 16 of them are as much as is kept."""
    ids = []
    for _ in range(19):
        ids.append(await detached(pilot, f"head -c {20 * MEGABYTE} /dev/zero | tr '\\0' x; echo the end"))
        assert await gone(http, ids[-1], patience=20)
    assert spooled(pilot) <= 257 * MEGABYTE  # counted in bytes, of which a file system makes whole blocks
    with pytest.raises(InvalidStatus) as caught:
        async with pilot.connect(f"/exec/{ids[0]}"):
            pass
    said = json.loads(caught.value.response.body or b"")
    assert caught.value.response.status_code == 404
    assert "has ended" in said["message"] and "256 MiB" in said["hint"]
    for id in ids[-10:]:
        async with asyncio.timeout(20), pilot.connect(f"/exec/{id}") as socket:
            assert (await finish(socket)).stdout.endswith(b"the end\n")


def spooled(pilot: Pilot) -> int:
    """Bytes that the output of sessions takes on the host's disk."""
    return sum(path.stat().st_blocks * 512 for path in (pilot.directory / "spool").iterdir())


def plain_client(pilot: Pilot, path: str) -> sockets.socket:
    """A client that has asked for a WebSocket and reads nothing of it."""
    client = sockets.socket(sockets.AF_UNIX)
    client.connect(str(pilot.socket))
    client.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    return client


FLOOD = f"echo ready; read x; head -c {COUNT * MEGABYTE} /dev/zero; echo; echo end"


async def test_a_slow_second_client_stops_nobody(pilot: Pilot, http: httpx.Client) -> None:
    async with asyncio.timeout(30), pilot.connect(query("sh", "-c", FLOOD)) as owner:
        id = (await until(owner, b"ready\n")).info["session_id"]
        with plain_client(pilot, f"/exec/{id}"):
            await asyncio.sleep(0.3)
            await owner.send(b"\0\n")
            done = await finish(owner)
    assert len(done.stdout) == COUNT * MEGABYTE + 5
    assert done.exit == 0


async def test_a_slow_owner_does_not_stop_the_others(pilot: Pilot, http: httpx.Client) -> None:
    known = set(sessions(http))
    try:
        with plain_client(pilot, query("sh", "-c", FLOOD)):
            async with asyncio.timeout(30):
                while not (new := set(sessions(http)) - known):
                    await asyncio.sleep(0.1)
                async with pilot.connect(f"/exec/{new.pop()}") as second:
                    await second.send(b"\0\n")
                    assert (await finish(second)).exit == 0
    finally:
        kill_all(http)


async def test_who_attaches_alone_misses_nothing_however_slow(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, f"read x; head -c {COUNT * MEGABYTE} /dev/zero")
    async with asyncio.timeout(30), pilot.connect(f"/exec/{id}", max_queue=4) as socket:
        await socket.send(b"\0\n")
        await asyncio.sleep(3)
        done = await finish(socket)
    assert len(done.stdout) == COUNT * MEGABYTE + len("ready\n")


async def test_a_client_that_only_watches_does_not_end_the_input(pilot: Pilot, http: httpx.Client) -> None:
    """The official Python client sends the end of input as soon as it has attached."""
    async with asyncio.timeout(30), pilot.connect(query("sh", "-c", "echo ready; cat")) as owner:
        id = (await until(owner, b"ready\n")).info["session_id"]
        async with pilot.connect(f"/exec/{id}") as watcher:
            await until(watcher, b"ready\n")
            await watcher.send(b"\x04")
            await asyncio.sleep(0.3)
            await owner.send(b"\0hello\n")
            await until(owner, b"hello\n")
    kill_all(http)


@pytest.mark.parametrize(("agent", "survives"), [("sprites-py/0.7.2 x", True), ("sprites-go-sdk/1.0", False)])
async def test_the_python_client_does_not_end_a_shell_by_attaching(
    pilot: Pilot, http: httpx.Client, agent: str, survives: bool
) -> None:
    """It sends the end of input before it knows that there is a terminal, to which that is ^D."""
    id = await detached(pilot, "exec cat", tty="true")
    async with (
        asyncio.timeout(30),
        pilot.connect(f"/exec/{id}?stdin=true", user_agent_header=agent) as socket,
    ):
        await socket.send(b"\x04")
        await socket.send(b"still here\n")
        if survives:
            await until(socket, b"still here\r\nstill here", tty=True)
            await socket.send(b"\x04")
        assert (await finish(socket, tty=True)).exit == 0
    kill_all(http)


async def test_who_attaches_without_input_gives_none(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "head -n 1")
    async with asyncio.timeout(30), pilot.connect(f"/exec/{id}?stdin=false") as watcher:
        await watcher.send(b"\0watcher\n")
        async with pilot.connect(f"/exec/{id}") as other:
            await other.send(b"\0other\n")
            assert b"other" in (await finish(other)).stdout
        assert b"watcher" not in (await finish(watcher)).stdout


async def test_the_rate_is_that_of_late(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "head -c 3000000 /dev/zero; exec sleep 60")
    await asyncio.sleep(0.5)
    first = sessions(http)[id]["bytes_per_second"]
    await asyncio.sleep(1.5)
    second = sessions(http)[id]["bytes_per_second"]
    assert first > second > 0
    kill_all(http)


async def test_a_kill_goes_on_when_its_client_goes(pilot: Pilot, http: httpx.Client) -> None:
    id = await detached(pilot, "trap '' TERM; while :; do sleep 0.1; done")
    await asyncio.sleep(0.3)  # for the trap to be set
    with sockets.socket(sockets.AF_UNIX) as client:
        client.connect(str(pilot.socket))
        client.sendall(f"POST /exec/{id}/kill?timeout=1s HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(0.3)
    assert id in sessions(http)
    assert await gone(http, id)


@pytest.mark.slow
async def test_a_silent_session_sends_something_in_time(pilot: Pilot) -> None:
    async with asyncio.timeout(40), pilot.connect(query("sleep", "26")) as socket:
        done = await finish(socket)
    assert {"type": "keepalive"} in done.texts
    assert done.exit == 0


async def test_clients_that_vanish_leave_nothing(pilot: Pilot, http: httpx.Client) -> None:
    kill_all(http)
    for _ in range(30):
        client = plain_client(pilot, query("sh", "-c", "yes", max_run_after_disconnect="100ms"))
        await asyncio.sleep(0.01)
        client.close()
    for _ in range(100):
        if not sessions(http):
            break
        await asyncio.sleep(0.1)
    assert not sessions(http)
