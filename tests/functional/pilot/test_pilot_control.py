"""The control connection: one operation after another over one socket, in each of its dialects."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from pilot_client import Done, Pilot, query, take, until
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

HOME = "/home/sprite"
PREFIX = "control:"


async def start(socket: ClientConnection, op: str = "exec", **args: Any) -> None:
    await socket.send(PREFIX + json.dumps({"type": "op.start", "op": op, "args": args}))


async def finish(socket: ClientConnection, *, tty: bool = False) -> tuple[Done, dict[str, Any]]:
    """Read up to the end of the operation; return what was seen, and its last envelope."""
    done = Done()
    async with asyncio.timeout(20):
        while True:
            message = await socket.recv()
            if isinstance(message, str) and message.startswith(PREFIX):
                return done, json.loads(message.removeprefix(PREFIX))
            take(done, message, tty=tty)


async def run(socket: ClientConnection, *argv: str, **args: Any) -> tuple[Done, dict[str, Any]]:
    await start(socket, cmd=list(argv), **args)
    await socket.send(b"\x04")
    return await finish(socket, tty=args.get("tty") == "true")


async def test_one_command_after_another(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        for code in (0, 7, 255):
            done, end = await run(socket, "sh", "-c", f"echo out; echo err >&2; exit {code}", stdin="false")
            assert done.info["type"] == "session_info"
            assert (done.stdout, done.stderr, done.exit) == (b"out\n", b"err\n", code)
            assert end == {"type": "op.complete", "args": {"exitCode": code}}


async def test_the_arguments_are_those_of_exec(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        done, _ = await run(
            socket, "sh", "-c", "pwd; echo $A$B", env=["A=1", "B=2"], dir="/tmp", stdin="false"
        )
        assert done.stdout == b"/tmp\n12\n"
        done, _ = await run(socket, "sh", "-c", "stty size", tty="true", rows="30", cols="100")
        assert b"30 100" in done.raw
        done, _ = await run(socket, "other", "-c", "echo $0", path="/bin/sh", stdin="false")
        assert done.stdout == b"other\n"


async def test_a_terminal_tells_its_code_in_both_ways(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        done, end = await run(socket, "sh", "-c", "exit 9", tty="true")
        assert (done.exit, end["args"]["exitCode"]) == (9, 9)
        assert (await run(socket, "true", stdin="false"))[1]["args"]["exitCode"] == 0


async def test_input_signals_and_sizes_of_the_operation(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        await start(socket, cmd=["cat"], stdin="true")
        await socket.send(b"\0hello")
        await socket.send(b"\x04")
        assert (await finish(socket))[0].stdout == b"hello"
        await start(socket, cmd=["sh", "-c", "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done"])
        await until(socket, b"ready\n")
        # One official client sends its signals as binary messages here.
        await socket.send(b'{"type":"signal","signal":"USR1"}')
        assert (await finish(socket))[1]["args"]["exitCode"] == 4


async def test_attaching(pilot: Pilot, http: httpx.Client) -> None:
    async with pilot.connect(
        query("sh", "-c", "echo ready; read x; echo got $x", detachable="true")
    ) as owner:
        id = (await until(owner, b"ready\n")).info["session_id"]
    async with pilot.connect("/control") as socket:
        await start(socket, id=id)
        await socket.send(b"\0it\n")
        done, end = await finish(socket)
        assert (done.info["session_id"], done.stdout) == (id, b"ready\ngot it\n")
        assert end["args"]["exitCode"] == 0
        await start(socket, id="nothing")
        assert (await finish(socket))[1]["type"] == "op.error"


@pytest.mark.parametrize(
    "envelope",
    [
        {"op": "exec", "args": {"cmd": ["x"], "rows": "0"}},
        {"op": "exec", "args": {"cmd": ["x"], "env": ["NOVALUE"]}},
        {"op": "exec", "args": {"cmd": [{}]}},
        {"op": "exec", "args": []},
        {"op": "exec", "args": {"cmd": ["\ud800"]}},
        {"op": "nonsense"},
        {},
    ],
)
async def test_what_cannot_be_started_is_said_and_the_connection_goes_on(
    pilot: Pilot, envelope: dict[str, Any]
) -> None:
    async with pilot.connect("/control") as socket:
        await socket.send(PREFIX + json.dumps({"type": "op.start", **envelope}))
        _, end = await finish(socket)
        assert end["type"] == "op.error" and end["args"]["error"] and end["args"]["hint"]
        assert (await run(socket, "echo", "on", stdin="false"))[0].stdout == b"on\n"


async def test_a_missing_program_ends_as_in_a_shell(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        done, end = await run(socket, "no-such-program", stdin="false")
        assert done.exit == 127 and b"not found" in done.stderr
        assert end == {"type": "op.complete", "args": {"exitCode": 127}}


async def test_who_starts_another_operation_has_left_the_one_before(pilot: Pilot, http: httpx.Client) -> None:
    """As the Python client does when a command takes longer than it was given."""
    async with pilot.connect("/control") as socket:
        await start(socket, cmd=["sh", "-c", "while :; do echo old; sleep 0.01; done"], detachable="true")
        id = (await until(socket, b"old\n")).info["session_id"]
        await start(socket, cmd=["echo", "new"], stdin="false")
        done, end = await finish(socket)
        while done.info["session_id"] == id:  # what was on its way
            done.texts.pop(0)
        assert done.stdout.endswith(b"new\n") and end["type"] == "op.complete"
        assert (await run(socket, "echo", "more", stdin="false"))[0].stdout == b"more\n"
    [left] = http.get("/exec").json()["sessions"]
    assert (left["id"], left["is_active"]) == (id, False)
    http.post(f"/exec/{id}/kill?signal=KILL")


async def test_a_command_ends_with_the_connection_if_it_is_not_detachable(
    pilot: Pilot, http: httpx.Client
) -> None:
    async with pilot.connect("/control") as socket:
        await start(socket, cmd=["sh", "-c", "echo ready; exec sleep 60"], max_run_after_disconnect="100ms")
        await until(socket, b"ready\n")
    for _ in range(50):
        if not http.get("/exec").json()["sessions"]:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it still runs")


async def test_the_client_whose_reader_races_is_refused(pilot: Pilot) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with pilot.connect("/control", user_agent_header="sprites-go-sdk/1.0"):
            pass
    assert caught.value.response.status_code == 404


async def test_the_dialect_for_tcp_connections_is_refused(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        start = {"type": "start", "operation": "proxy", "params": {"host": "localhost", "port": 1}}
        await socket.send(json.dumps(start))
        answer = json.loads(await socket.recv())
        assert answer["status"] == "failed" and answer["hint"]


async def test_many_connections_at_once(pilot: Pilot) -> None:
    async def one(number: int) -> None:
        async with pilot.connect("/control") as socket:
            for _ in range(5):
                done, _ = await run(socket, "echo", str(number), stdin="false")
                assert done.stdout == f"{number}\n".encode()

    await asyncio.gather(*[one(number) for number in range(20)])


# Files


async def call(socket: ClientConnection, op: str, data: bytes | None = None, **args: str) -> list[Any]:
    """Do a file operation; return all messages up to the one that ends it."""
    await socket.send(json.dumps({"type": "op.start", "op": op, "args": urlencode(args)}))
    if data is not None:
        await socket.send(data)
    seen: list[Any] = []
    async with asyncio.timeout(20):
        while True:
            message = await socket.recv()
            seen.append(json.loads(message) if isinstance(message, str) else message)
            if isinstance(seen[-1], dict) and str(seen[-1].get("type", "")).startswith("op."):
                return seen


COMPLETE = {"type": "op.complete"}


async def test_files(pilot: Pilot) -> None:
    async with pilot.connect("/control") as socket:
        written = await call(socket, "fs.write", b"hello", path="a", workingDir=HOME, mode="0640")
        assert written == [{"path": f"{HOME}/a", "size": 5, "mode": "0640"}, COMPLETE]
        assert await call(socket, "fs.read", path=f"{HOME}/a") == [
            {"path": f"{HOME}/a", "size": 5},
            b"hello",
            COMPLETE,
        ]
        assert (await call(socket, "fs.read", path=f"{HOME}/a", start="1", end="3"))[1] == b"el"
        [copied, end] = await call(socket, "fs.copy", source="a", dest="b", workingDir=HOME)
        assert copied["copied"] == [{"source": f"{HOME}/a", "dest": f"{HOME}/b"}] and end == COMPLETE
        await call(socket, "fs.rename", source="b", dest="c", workingDir=HOME)
        await call(socket, "fs.chmod", path=f"{HOME}/c", mode="0600")
        [listed, _] = await call(socket, "fs.list", path=HOME)
        assert {e["name"]: e["mode"] for e in listed["entries"]} == {"a": "0640", "c": "0600"}
        [_, end] = await call(socket, "fs.chown", path=f"{HOME}/c", uid="0", asRoot="true")
        assert end == COMPLETE
        for name in ("a", "c"):
            assert (await call(socket, "fs.delete", path=f"{HOME}/{name}"))[-1] == COMPLETE
        # and a command in between, in the other dialect
        assert (await run(socket, "echo", "on", stdin="false"))[0].stdout == b"on\n"


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("fs.read", {"path": "/none"}, "ENOENT"),
        ("fs.read", {"path": "/etc/secret"}, "EACCES"),
        ("fs.read", {"path": "/etc"}, "EISDIR"),
        ("fs.read", {}, "EINVAL"),
        ("fs.read", {"path": "/etc/team", "start": "x"}, "EINVAL"),
        ("fs.list", {"path": "/none"}, "ENOENT"),
        ("fs.chmod", {"path": "/etc", "mode": "0755"}, "EPERM"),
        ("fs.nonsense", {"path": "/"}, "EINVAL"),
    ],
)
async def test_failed_file_operations(pilot: Pilot, op: str, args: dict[str, str], code: str) -> None:
    async with pilot.connect("/control") as socket:
        [error, end] = await call(socket, op, **args)
        assert error["code"] == code and error["error"]
        assert end == {"type": "op.error", "args": {"error": error["error"]}}


async def test_a_file_that_is_too_large_for_a_message_is_refused(pilot: Pilot, http: httpx.Client) -> None:
    http.put("/fs/write", params={"path": "/tmp/large"}, content=bytes(9 << 20))
    async with pilot.connect("/control") as socket:
        [error, end] = await call(socket, "fs.read", path="/tmp/large")
        assert error["code"] == "EFBIG" and end["type"] == "op.error"
    http.delete("/fs/delete", params={"path": "/tmp/large"})
