"""Whatever a client sends: no 500, no hang, no leak, and the next one is served."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pilot_client import Pilot, query
from pilot_inside import Inside
from websockets.exceptions import ConnectionClosed, InvalidStatus

# One pilot serves all examples of a test, so fixtures are not made anew for each.
EXAMPLES = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HOME = "/home/sprite"
PATIENCE_S = 20

TEXT = st.text(max_size=30)
PATHS = st.one_of(
    TEXT,
    st.sampled_from(
        [
            "/",
            HOME,
            "/etc/passwd",
            "/etc/secret",
            "/odd/special/fifo",
            "/odd/special/socket",
            "/odd/links/loop",
            "/odd/links/to-odd",
            "/proc/self/fd/3",
            "/dev/null",
            "/..",
            "//",
            "a/../..",
            "x" * 300,
            "/" + "a/" * 2000,
        ]
    ),
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "odd", "links", "etc"]), max_size=8).map("/".join),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | PATHS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
NAMES = [
    "path",
    "source",
    "dest",
    "workingDir",
    "mode",
    "uid",
    "gid",
    "recursive",
    "pattern",
    "asRoot",
    "preserveAttrs",
]
# As the user only: root could be told to wreck the stand-in's world.
FIELDS = st.dictionaries(st.sampled_from([*NAMES[:-2], NAMES[-1], "mkdirParents"]), JSON | PATHS, max_size=6)
MESSAGES = st.one_of(
    st.binary(max_size=200),
    TEXT,
    JSON.map(json.dumps),
    st.builds(
        lambda kind, rest: json.dumps({**rest, "type": kind}),
        st.sampled_from(["resize", "signal", "x"]),
        st.dictionaries(st.sampled_from(["rows", "cols", "signal"]), JSON),
    ),
)


@pytest.fixture(autouse=True)
def nothing_is_left(pilot: Pilot, http: httpx.Client) -> Iterator[None]:
    """After a test there are as many processes, sessions and open files as before it."""
    before = _counts(pilot, http)
    yield
    for session in http.get("/exec").json()["sessions"]:
        http.post(f"/exec/{session['id']}/kill?signal=KILL")
    deadline = time.monotonic() + 15
    while any(
        now > then + slack for now, then, slack in zip(_counts(pilot, http), before, SLACK, strict=True)
    ):
        assert time.monotonic() < deadline, (before, _counts(pilot, http))
        time.sleep(0.1)
    for entry in http.get("/fs/list", params={"path": HOME, "asRoot": "true"}).json()["entries"]:
        gone = {"path": entry["path"], "recursive": "true", "asRoot": "true"}
        assert http.delete("/fs/delete", params=gone).status_code == 200


SLACK = (0, 0, 0, 2)  # the client here may open another connection


def _counts(pilot: Pilot, http: httpx.Client) -> tuple[int, int, int, int]:
    """Processes, sessions, files and sockets; without the output of sessions, which is kept for a while."""
    sessions = len(http.get("/exec").json()["sessions"])
    init = int(Path(f"/proc/{pilot.pid}/task/{pilot.pid}/children").read_text().split()[0])
    files = [str(fd.readlink()) for fd in Path(f"/proc/{init}/fd").iterdir() if fd.is_symlink()]
    files = [file for file in files if "/spool/" not in file]
    sockets = sum(file.startswith("socket:") for file in files)
    return len(Inside(pilot).processes()), sessions, len(files) - sockets, sockets


def acceptable(answer: httpx.Response) -> None:
    """A refusal is the client's fault and says so; it is never a failure of ours."""
    assert answer.status_code < 500 or answer.status_code == 507, (answer.request.url, answer.text)
    if answer.status_code >= 400 and answer.status_code != 405 and answer.request.method != "HEAD":
        assert answer.json()["error"], answer.text


@EXAMPLES
@given(op=st.sampled_from(["rename", "copy", "chmod", "chown"]), fields=FIELDS)
def test_bodies_of_file_operations(http: httpx.Client, op: str, fields: dict[str, Any]) -> None:
    acceptable(http.post(f"/fs/{op}", content=json.dumps(fields)))


@EXAMPLES
@given(
    call=st.sampled_from([("GET", "read"), ("GET", "list"), ("PUT", "write"), ("DELETE", "delete")]),
    fields=st.dictionaries(st.sampled_from([*NAMES[:-2], "mkdir"]), TEXT | PATHS, max_size=5),
    content=st.binary(max_size=50),
)
def test_queries_of_file_operations(
    http: httpx.Client, call: tuple[str, str], fields: dict[str, str], content: bytes
) -> None:
    method, op = call
    headers = {"Range": content.decode("latin-1").encode("ascii", "replace").decode()} if op == "read" else {}
    try:
        url = f"/fs/{op}?{urlencode(fields)}"
    except UnicodeEncodeError:
        return  # no URL says that
    try:
        acceptable(http.request(method, url, content=content if op == "write" else None, headers=headers))
    except httpx.LocalProtocolError:
        return  # a header that no client can send


@EXAMPLES
@given(st.binary(max_size=300))
def test_bodies_that_are_no_json(http: httpx.Client, body: bytes) -> None:
    for path in ("/fs/copy", "/exec/1/kill"):
        acceptable(http.post(path, content=body))


@EXAMPLES
@given(tty=st.booleans(), messages=st.lists(MESSAGES, max_size=8))
def test_messages_to_a_command(pilot: Pilot, tty: bool, messages: list[str | bytes]) -> None:
    async def talk() -> None:
        path = query("head", "-c", "10000", tty=str(tty).lower(), max_run_after_disconnect="50ms")
        async with asyncio.timeout(PATIENCE_S), pilot.connect(path) as socket:
            await socket.recv()
            try:
                for message in messages:
                    await _send(socket, message)
                assert await (await socket.ping()) >= 0, "it still answers"
            except ConnectionClosed as closed:  # a key such as ^C, or a signal, was among them and ended it
                assert closed.rcvd is not None
                assert closed.rcvd.code > 4128 if tty else closed.rcvd.code == 1000, closed

    _run(talk())


@EXAMPLES
@given(
    messages=st.lists(
        MESSAGES
        | JSON.map(lambda args: "control:" + json.dumps({"type": "op.start", "op": "exec", "args": args}))
        | st.builds(
            lambda op, args: "control:" + json.dumps({"type": "op.start", "op": op, "args": args}),
            st.sampled_from(["exec", "proxy", ""]),
            st.dictionaries(
                st.sampled_from(["cmd", "path", "env", "dir", "tty", "rows", "id", "stdin"]), JSON
            ),
        )
        | st.builds(
            lambda op, args: json.dumps({"type": "op.start", "op": op, "args": urlencode(_sendable(args))}),
            st.sampled_from(["fs.read", "fs.list", "fs.write", "fs.copy", "fs.rename", "fs.chmod", "fs.x"]),
            st.dictionaries(st.sampled_from(NAMES[:9]), TEXT | PATHS, max_size=4),
        )
        | TEXT.map(lambda text: "control:" + text),
        max_size=8,
    )
)
def test_messages_to_a_control_connection(pilot: Pilot, messages: list[str | bytes]) -> None:
    async def talk() -> None:
        async with asyncio.timeout(PATIENCE_S), pilot.connect("/control") as socket:
            for message in messages:
                await _send(socket, message)
            # Whatever came before, a command runs.
            start = {"type": "op.start", "op": "exec", "args": {"cmd": ["echo", "fuzzed"]}}
            await socket.send("control:" + json.dumps(start))
            while await socket.recv() != b"\x01fuzzed\n":
                continue

    _run(talk())


@EXAMPLES
@given(
    messages=st.lists(
        MESSAGES
        | st.builds(
            lambda kind, rest: json.dumps({**rest, "type": kind}),
            st.sampled_from(["subscribe", "unsubscribe"]),
            st.fixed_dictionaries(
                {"paths": st.lists(PATHS, max_size=4) | JSON},
                optional={"recursive": JSON, "workingDir": PATHS | JSON},
            ),
        ),
        max_size=8,
    )
)
def test_messages_to_a_watcher(pilot: Pilot, messages: list[str | bytes]) -> None:
    async def talk() -> None:
        async with asyncio.timeout(PATIENCE_S), pilot.connect("/fs/watch") as socket:
            for message in messages:
                await _send(socket, message)
            await socket.send(json.dumps({"type": "subscribe", "paths": [f"{HOME}/../sprite/."]}))
            while json.loads(await socket.recv()) != {"type": "subscribed", "paths": [HOME]}:
                continue

    _run(talk())


@EXAMPLES
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "cmd",
                    "path",
                    "env",
                    "dir",
                    "tty",
                    "rows",
                    "cols",
                    "stdin",
                    "id",
                    "detachable",
                    "cc",
                    "max_run_after_disconnect",
                ]
            ),
            TEXT,
        ),
        max_size=6,
    )
)
def test_parameters_of_exec(pilot: Pilot, http: httpx.Client, pairs: list[tuple[str, str]]) -> None:
    # Whatever program is meant, it is one that ends at once.
    pairs = [(name, "true" if name in ("cmd", "path") else value) for name, value in pairs] + [
        ("cmd", "true")
    ]
    try:
        path = "/exec?" + urlencode(pairs)
    except UnicodeEncodeError:
        return

    async def talk() -> None:
        async with asyncio.timeout(PATIENCE_S), pilot.connect(path) as socket:
            async for _ in socket:
                continue

    try:
        _run(talk())
    except InvalidStatus as refused:
        assert refused.response.status_code in (400, 404), refused
    except ConnectionClosed as closed:
        assert closed.rcvd is not None and 1000 <= closed.rcvd.code < 5000
    acceptable(http.post(path))


@EXAMPLES
@given(st.binary(max_size=400))
def test_bytes_that_are_no_http(pilot: Pilot, http: httpx.Client, data: bytes) -> None:
    async def talk() -> None:
        reader, writer = await asyncio.open_unix_connection(str(pilot.socket))
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            while await reader.read(65536):
                continue
        writer.close()

    _run(talk())
    assert http.get("/pilot/status").status_code == 200


@EXAMPLES
@given(st.binary(max_size=400))
def test_bytes_that_are_no_frames(pilot: Pilot, http: httpx.Client, data: bytes) -> None:
    """After a good handshake."""

    async def talk() -> None:
        reader, writer = await asyncio.open_unix_connection(str(pilot.socket))
        path = query("head", "-c", "1000", max_run_after_disconnect="50ms")
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            + data
        )
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            while await reader.read(65536):
                continue
        writer.close()

    _run(talk())
    assert http.get("/pilot/status").status_code == 200


def _sendable(fields: dict[str, str]) -> dict[str, str]:
    return {name: value.encode(errors="replace").decode() for name, value in fields.items()}


async def _send(socket: Any, message: str | bytes) -> None:
    if isinstance(message, str):
        message = message.encode(errors="replace").decode()
    await socket.send(message)


def _run(work: Any) -> None:
    asyncio.run(work)
