"""HTTP that a pilot answers: chunks as they were, back-pressure, and what is not handed on."""

from __future__ import annotations

import contextlib
import socket
import time

import httpx
import pytest

from .conftest import Running, head, until
from .pilot import FRAMES


def raw_chunks(connection: socket.socket) -> list[bytes]:
    """The chunks of a chunked response, as they are on the wire."""
    stream = connection.makefile("rb")
    while stream.readline() not in (b"\r\n", b""):
        pass
    chunks = []
    while size := int(stream.readline(), 16):
        chunks.append(stream.read(size))
        assert stream.readline() == b"\r\n"
    return chunks


def test_chunks_keep_their_boundaries(server: Running, sprite: str) -> None:
    with server.connect() as connection:
        path = f"/v1/sprites/{sprite}/exec?cmd=x"
        connection.sendall(head("POST", path, "Content-Length: 5") + b"hello")
        assert raw_chunks(connection) == [*FRAMES, b"\x01hello"]


@pytest.mark.parametrize("delay", [0.0, 0.3], ids=["at-once", "late"])
def test_frames_do_not_come_together(server: Running, sprite: str, delay: float) -> None:
    """The official JavaScript client takes what it reads at once for one frame, however late that is."""
    with server.connect() as connection:
        connection.sendall(head("POST", f"/v1/sprites/{sprite}/exec?cmd=x"))
        reads = []
        while not reads or not reads[-1].endswith(b"0\r\n\r\n"):
            time.sleep(delay)
            reads.append(connection.recv(1 << 20))
    assert len(reads) >= len(FRAMES)
    assert not any(b"\x01out\r\n" in data and b"\x02err\r\n" in data for data in reads)


def test_a_chunk_that_comes_in_pieces_is_one_chunk(
    server: Running, sprite: str, listener: socket.socket
) -> None:
    """A pilot's chunk may arrive in any number of reads."""
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec"))
        pilot, _ = listener.accept()
        with pilot:
            request = pilot.recv(65536)
            assert b"uthorization" not in request
            chunks = b"5\r\nabcde\r\n3\r\nxyz\r\n1\r\n!\r\n0\r\n\r\n"
            for byte in b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks:
                pilot.sendall(bytes([byte]))
                time.sleep(0.001)
            assert raw_chunks(connection) == [b"abcde", b"xyz", b"!"]


def test_the_request_reaches_the_pilot_without_what_is_ours(client: httpx.Client, sprite: str) -> None:
    shown = client.request(
        "POST",
        f"/v1/sprites/{sprite}/exec/a%2F..%2Fb%20c/kill?signal=TERM&x=%2F",
        content='{"signal":"TERM"}',
        headers={"X-Mine": "1", "Connection": "X-Hop, keep-alive", "X-Hop": "1", "TE": "trailers"},
    )
    # An encoded slash is a slash to every router, so this names no session at all.
    assert shown.status_code == 404
    shown = client.post(
        f"/v1/sprites/{sprite}/exec/b%20c/kill?signal=TERM&x=%2F",
        content='{"signal":"TERM"}',
        headers={"X-Mine": "1", "Connection": "X-Hop, keep-alive", "X-Hop": "1", "TE": "trailers"},
    )
    answer = shown.json()
    assert (answer["method"], answer["path"], answer["query"]) == (
        "POST",
        "/exec/b%20c/kill",
        "signal=TERM&x=%2F",
    )
    assert answer["body"] == '{"signal":"TERM"}'
    assert answer["headers"]["x-mine"] == "1"
    assert not {"authorization", "x-hop", "te", "expect"} & set(answer["headers"])
    assert answer["headers"]["connection"] == "close"
    assert "keep-alive" not in shown.headers
    assert shown.headers["sprite-version"] == "v0.1.0"


def test_errors_of_the_pilot_pass_unchanged(client: httpx.Client, sprite: str) -> None:
    answer = client.get(f"/v1/sprites/{sprite}/fs/read?path=/missing")
    assert answer.status_code == 404
    assert answer.json()["code"] == "ENOENT"


def test_large_bodies_stream_both_ways(client: httpx.Client, server: Running, sprite: str) -> None:
    size = 20_000_000

    def body():  # type: ignore[no-untyped-def]
        for _ in range(20):
            yield b"w" * 1_000_000

    assert client.put(f"/v1/sprites/{sprite}/fs/write?path=/f", content=body()).json()["size"] == size
    assert client.put(f"/v1/sprites/{sprite}/fs/write?path=/f", content=b"w" * size).json()["size"] == size
    assert client.put(f"/v1/sprites/{sprite}/fs/write?path=/f", content=b"").json()["size"] == 0
    answer = client.get(f"/v1/sprites/{sprite}/fs/read?path=/{size}")
    assert answer.headers["content-length"] == str(size)
    assert len(answer.content) == size
    assert not server.engine.awake_now[sprite]


def test_a_slow_reader_slows_the_sender(server: Running, sprite: str) -> None:
    with server.connect() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        path = f"/v1/sprites/{sprite}/fs/write?path=/slow"
        connection.sendall(head("PUT", path, "Content-Length: 100000000"))
        connection.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 100_000_000:
                sent += connection.send(b"w" * 65536)
        until(lambda: server.pilot.received > 0)
        # What has been taken and not reached the pilot sits in a few buffers, not in memory without end.
        assert sent < 20_000_000
        server.loop.call_soon_threadsafe(server.pilot.release.set)
    until(lambda: not server.engine.awake_now[sprite])


def test_a_refusal_before_the_body_was_read(client: httpx.Client, sprite: str) -> None:
    answer = client.put(f"/v1/sprites/{sprite}/fs/write?path=/refused", content=b"w" * 5_000_000)
    assert answer.status_code == 400
    assert answer.json()["code"] == "EISDIR"


def test_an_answer_of_a_pilot_that_reads_no_further_arrives(
    server: Running, sprite: str, listener: socket.socket
) -> None:
    """It closes with the body unread, which on a unix socket resets the connection."""
    with server.connect() as connection:
        connection.sendall(head("PUT", f"/v1/sprites/{sprite}/fs/write?path=/f", "Content-Length: 3000000"))
        connection.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"w" * 3_000_000)
        connection.settimeout(10)
        pilot, _ = listener.accept()
        pilot.recv(1000)
        pilot.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        pilot.close()
        received = b""
        while not received.endswith(b"\r\n\r\nno"):
            data = connection.recv(65536)
            assert data, received
            received += data
        assert received.startswith(b"HTTP/1.1 400 ")


def test_no_uploads_while_the_host_is_full(client: httpx.Client, server: Running, sprite: str) -> None:
    server.engine.full = True
    answer = client.put(f"/v1/sprites/{sprite}/fs/write?path=/f", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
    assert server.pilot.received == 0
    assert client.get(f"/v1/sprites/{sprite}/fs/read?path=/5").content == b"rrrrr"


def test_a_client_that_goes_away_ends_the_request(client: httpx.Client, server: Running, sprite: str) -> None:
    with client.stream("DELETE", f"/v1/sprites/{sprite}/fs/delete") as answer:
        ticks = answer.iter_raw()  # dropped, it would close the connection at once
        assert next(ticks) == b"tick\n"
        assert server.engine.awake_now[sprite] == 1
    client.close()
    until(server.pilot.disconnected.is_set)
    until(lambda: not server.engine.awake_now[sprite])


def test_unknown_sprite_and_no_pilot(client: httpx.Client, server: Running, sprite: str) -> None:
    for method, path in (
        ("GET", "exec"),
        ("POST", "exec"),
        ("POST", "exec/1/kill"),
        ("GET", "fs/read"),
        ("PUT", "fs/write"),
        ("GET", "fs/list"),
        ("DELETE", "fs/delete"),
    ):
        answer = client.request(method, f"/v1/sprites/nobody/{path}")
        assert (answer.status_code, answer.json()["error"]) == (404, "sprite not found")
    server.engine.pilot_socket = server.engine.pilot_socket.with_name("none.sock")
    answer = client.get(f"/v1/sprites/{sprite}/exec")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.json()["hint"]
    assert not server.engine.awake_now[sprite]


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"])
def test_a_pilot_that_breaks_off(
    server: Running, sprite: str, listener: socket.socket, answer: bytes
) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec"))
        pilot, _ = listener.accept()
        pilot.recv(65536)
        pilot.sendall(answer)
        pilot.close()
        received = b""
        while b'"code":"broken"' not in received:
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 500 ")


def test_a_response_that_breaks_off_is_seen_to(server: Running, sprite: str, listener: socket.socket) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec"))
        pilot, _ = listener.accept()
        pilot.recv(65536)
        pilot.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        received = b""
        while b"abc" not in received:
            received += connection.recv(65536)
        pilot.close()
        assert connection.recv(65536) == b""
        assert b"0\r\n\r\n" not in received


def test_headers_that_contradict_each_other_are_refused(server: Running, sprite: str) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec", "Host: another"))
        received = b""
        while not received.endswith(b"}"):
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 400 ") and b"Host" in received, received


def test_what_is_not_http_is_refused_in_json(server: Running) -> None:
    with server.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        received = b""
        while data := connection.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"application/json" in received and b'"code":"invalid_request"' in received


@pytest.mark.parametrize("line", [b"X: " + b"x" * 100_000, b"X: y\r\n" * 10_000])
def test_a_head_without_end_is_refused(server: Running, line: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n")
        received = b""
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(line)
        with contextlib.suppress(ConnectionError):
            received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 431 ") or not received


def test_a_body_without_end_is_refused(server: Running) -> None:
    with server.connect() as connection:
        json, chunked = "Content-Type: application/json", "Transfer-Encoding: chunked"
        connection.sendall(head("POST", "/v1/sprites", json, chunked))
        for _ in range(20):
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
