"""Headers, query strings, handshakes, frames and bytes at the server's port: whatever they are, there is an
answer or a close, soon, and the server, the sprite and the next client go on.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import fuzzing
import httpx
import pytest
from fuzzing import HOME, PATHS, PATIENCE_S
from hypothesis import given
from hypothesis import strategies as st

import serving

TEXT = st.text(max_size=20).map(lambda text: text.encode(errors="replace").decode())
# What may stand in a line of a request's head, and what may not.
LINE = st.text(st.characters(max_codepoint=255), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from(PATHS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
# ENDPOINT, and a query that opens something which ends when its client does.
SOCKETS = {
    "exec": "cmd=cat&stdin=true&max_run_after_disconnect=50ms",
    "exec on a terminal": "cmd=cat&tty=true&max_run_after_disconnect=50ms",
    "control": "",
    "proxy": "",
    "ports/watch": "",
    "fs/watch": "",
}
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
UPGRADE = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fuzzed(server: serving.Server) -> Iterator[Any]:
    made = server.client().create_sprite("fuzzed2")
    fuzzing.furnish(server, made)
    yield made
    made.delete()


@pytest.fixture(autouse=True)
def nothing_is_left(server: serving.Server, fuzzed: Any) -> Iterator[None]:
    with fuzzing.nothing_is_left(server, fuzzed):
        yield


@pytest.fixture(scope="module")
def http(server: serving.Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


# Files

CALLS = {"read": "GET", "write": "PUT", "list": "GET", "delete": "DELETE"}


@fuzzing.examples(250)
@given(
    op=st.sampled_from(sorted(CALLS)),
    path=st.sampled_from(PATHS) | TEXT,
    more=st.dictionaries(
        st.sampled_from(["workingDir", "mode", "mkdir", "mkdirParents", "recursive", "pattern", "asRoot"]),
        st.sampled_from(["true", "false", "", "0644", "**", "*/*", "[", "/home/sprite"]) | TEXT,
        max_size=3,
    ),
    span=st.sampled_from(["", "bytes=0-", "bytes=-1", "bytes=5-2", "bytes=99-", "bytes=0-1,2-3", "x"]) | LINE,
    content=st.binary(max_size=40),
)
def test_paths(
    http: httpx.Client, fuzzed: Any, op: str, path: str, more: dict[str, str], span: str, content: bytes
) -> None:
    if op == "delete" and path in ("/", HOME, "..", "/..", "//"):
        more["recursive"] = more["asRoot"] = "false"
    if op == "list" and not path.startswith(HOME):
        more |= {"recursive": "false", "pattern": ""}  # a whole system takes long
    headers = {"Range": span.strip().encode("latin-1")} if op == "read" and span.isprintable() else {}
    fuzzing.acceptable(
        http.request(
            CALLS[op],
            f"/v1/sprites/{fuzzed.name}/fs/{op}",
            params={**more, "path": path},
            headers=headers,
            content=content if op == "write" else None,
            timeout=PATIENCE_S,
        )
    )


# Heads


@fuzzing.examples(200)
@given(
    method=st.sampled_from(
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "X-Y"]
    ),
    path=st.sampled_from(
        [
            "/v1/sprites",
            "/v1/sprites/NAME",
            "/v1/sprites/NAME/exec?cmd=true",
            "/v1/sprites/NAME/fs/list?path=/",
        ]
    )
    | st.lists(
        st.sampled_from(
            ["v1", "sprites", "NAME", "fs", "exec", "services", "..", ".", "", "%2f", "%00", "%ff"]
        )
        | TEXT.map(lambda text: quote(text, safe="")),
        max_size=6,
    ).map(lambda parts: "/" + "/".join(parts)),
    headers=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Content-Type",
                    "Content-Encoding",
                    "Range",
                    "Expect",
                    "Connection",
                    "Cookie",
                    "User-Agent",
                    "Host",
                    "X-Forwarded-For",
                    "Sprite-Client-Features",
                    "If-Match",
                    "TE",
                    "Upgrade",
                ]
            ),
            st.sampled_from(["application/json", "100-continue", "close", "gzip", "websocket", "h2c"]) | LINE,
        ),
        max_size=4,
    ),
    body=st.sampled_from([b"", b"{}", b'{"name": 1}', b"[", b"\xff"]) | st.binary(max_size=50),
)
def test_heads(
    server: serving.Server,
    fuzzed: Any,
    method: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> None:
    lines = [f"{name}: {value}" for name, value in headers if _sendable(value)]
    lines += [f"Authorization: Bearer {server.token}", f"Content-Length: {len(body)}", "Connection: close"]
    if path == "/v1/sprites/NAME" and method == "DELETE":
        method = "GET"
    answer = _exchange(server, _head(method, path.replace("NAME", fuzzed.name), lines) + body)
    assert 200 <= _status(answer) < 500 or _status(answer) == 101, answer


@fuzzing.examples(80)
@given(st.lists(LINE, max_size=2))
def test_authorizations(server: serving.Server, values: list[str]) -> None:
    lines = [f"Authorization: {value}" for value in values if _sendable(value)]
    answer = _exchange(server, _head("GET", "/v1/tokens", [*lines, "Connection: close"]))
    assert _status(answer) in (400, 401), answer


@fuzzing.examples(150)
@given(
    before=st.sampled_from(
        [b"", b"GET /v1/sprites HTTP/1.1\r\n", b"POST /v1/sprites HTTP/1.1\r\nHost: x\r\n"]
    ),
    length=st.sampled_from([b"", b"Content-Length: -1\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"]),
    data=st.binary(max_size=300),
)
def test_bytes_that_are_no_http(server: serving.Server, before: bytes, length: bytes, data: bytes) -> None:
    answer = _exchange(server, before + length + data, end=True)
    assert not answer or 400 <= _status(answer) < 500, answer


# WebSockets


@fuzzing.examples(200)
@given(
    endpoint=st.sampled_from(
        [*(name.split()[0] for name in SOCKETS), "exec/1", "exec/%2e%2e", "exec/%ff", "fs/read", "x", ""]
    ),
    query=st.lists(
        st.tuples(
            st.sampled_from(
                ["path", "env", "dir", "tty", "rows", "cols", "stdin", "detachable", "cc", "op", "id"]
            ),
            st.sampled_from(["true", "0", "A=1", "/tmp", "80", "99999999999", "-1"]) | TEXT,
        ),
        max_size=4,
    ),
    dropped=st.sets(st.integers(0, 3), max_size=1),
    extra=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "Sec-WebSocket-Version",
                    "Sec-WebSocket-Key",
                    "Sec-WebSocket-Protocol",
                    "Sec-WebSocket-Extensions",
                    "Connection",
                    "Upgrade",
                    "User-Agent",
                    "Origin",
                    "Content-Length",
                    "Transfer-Encoding",
                ]
            ),
            st.sampled_from(["permessage-deflate", "13", "12", "h2c", "sprites-go-sdk/1", "5", "chunked"])
            | LINE,
        ),
        max_size=2,
    ),
)
def test_handshakes(
    server: serving.Server,
    fuzzed: Any,
    endpoint: str,
    query: list[tuple[str, str]],
    dropped: set[int],
    extra: list[tuple[str, str]],
) -> None:
    # Whatever program is meant, it is one that ends at once, and nobody's afterwards.
    pairs = [(name, "true" if name == "path" else value) for name, value in query]
    pairs += [("cmd", "true"), ("max_run_after_disconnect", "50ms")]
    lines = [line for number, line in enumerate(UPGRADE) if number not in dropped]
    lines += [f"{name}: {value}" for name, value in extra if _sendable(value)]
    lines.append(f"Authorization: Bearer {server.token}")
    path = f"/v1/sprites/{fuzzed.name}/{endpoint}?{urlencode(pairs)}"
    answer = _exchange(server, _head("GET", path, lines), b"", end=True)
    status = _status(answer)
    assert status == 101 or 200 <= status < 500, answer


FRAMES = st.lists(
    st.builds(
        lambda opcode, flags, data, length, masked: _frame(opcode, flags, data, length, masked),
        st.sampled_from([0, 1, 2, 8, 9, 10]) | st.integers(0, 15),
        st.sampled_from([0x80, 0x80, 0x80, 0x00, 0xC0, 0xF0]),
        st.binary(max_size=130)
        | JSON.map(lambda value: json.dumps(value).encode())
        | st.builds(
            lambda kind, rest: json.dumps({**rest, "type": kind}).encode(),
            st.sampled_from(["resize", "signal", "subscribe", "unsubscribe", "eof", "start", "op.start"]),
            st.dictionaries(
                st.sampled_from(
                    ["rows", "cols", "signal", "paths", "recursive", "host", "port", "op", "args"]
                ),
                JSON,
                max_size=4,
            ),
        )
        | JSON.map(
            lambda args: b"control:" + json.dumps({"type": "op.start", "op": "exec", "args": args}).encode()
        )
        | st.builds(
            lambda host, port: json.dumps({"host": host, "port": port}).encode(),
            st.sampled_from(["localhost", "127.0.0.1", "::1", "10.0.0.2", "0.0.0.0", "x" * 300]) | TEXT,
            st.integers(-1, 70000) | JSON,
        ),
        st.none() | st.sampled_from([0, 5, 126, 1 << 20, 1 << 62, (1 << 64) - 1]),
        st.sampled_from([True, True, True, False]),
    )
    | st.binary(max_size=100),
    max_size=6,
)


@pytest.mark.parametrize("kind", SOCKETS)
@fuzzing.examples(60)
@given(frames=FRAMES)
def test_frames(server: serving.Server, fuzzed: Any, kind: str, frames: list[bytes]) -> None:
    path = f"/v1/sprites/{fuzzed.name}/{kind.split(maxsplit=1)[0]}?{SOCKETS[kind]}"
    lines = [*UPGRADE, f"Authorization: Bearer {server.token}"]
    answer = _exchange(server, _head("GET", path, lines), b"".join(frames), end=True)
    assert _status(answer) == 101, answer


@fuzzing.examples(60)
@given(messages=st.lists(st.binary(max_size=300), max_size=4), brutal=st.booleans())
def test_clients_that_vanish(
    server: serving.Server, fuzzed: Any, messages: list[bytes], brutal: bool
) -> None:
    """In the middle of a frame, politely or not."""
    path = f"/v1/sprites/{fuzzed.name}/exec?{SOCKETS['exec']}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        lines = [*UPGRADE, f"Authorization: Bearer {server.token}"]
        connection.sendall(_head("GET", path, lines))
        assert connection.recv(65536).startswith(b"HTTP/1.1 101")
        for message in messages:
            connection.sendall(_frame(2, 0x80, message, None, True))
        connection.sendall(_frame(2, 0x80, b"half", 1 << 20, True))
        if brutal:  # a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# By hand, because a client library sends nothing wrong


def _head(method: str, path: str, lines: list[str]) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode("latin-1")


def _sendable(value: str) -> bool:
    """Whether it is one line of a head, so that what follows is a head, too."""
    return not set(value) & {"\r", "\n"}


def _frame(opcode: int, flags: int, data: bytes, length: int | None, masked: bool) -> bytes:
    """A frame (RFC 6455, 5.2) that says to have ``length`` bytes."""
    size = len(data) if length is None else length
    mask = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", flags | opcode, mask | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", flags | opcode, mask | 126, size)
    else:
        head = struct.pack("!BBQ", flags | opcode, mask | 127, size)
    # A key of zeros changes nothing.
    return head + (bytes(4) if masked else b"") + data


def _exchange(server: serving.Server, head: bytes, rest: bytes | None = None, *, end: bool = False) -> bytes:
    """Send it, and read what comes until the server closes; fails if it does not.

    ``rest`` is sent when the first of an answer has come. ``end``: then the client says that it is done.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(head)
            if rest is not None:
                answer = connection.recv(65536)
                connection.sendall(rest)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece if len(answer) < 1 << 20 else b""
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has closed before it had read everything
    return answer


def _status(answer: bytes) -> int:
    """The status of the last response that is no 100."""
    assert answer.startswith(b"HTTP/1.1 "), answer
    statuses = [int(answer[9:12])]
    if statuses == [100]:
        return _status(answer.partition(b"\r\n\r\n")[2])
    return statuses[0]
