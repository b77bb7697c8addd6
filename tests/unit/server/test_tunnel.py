"""WebSockets: refusals before the upgrade, and bytes untouched after it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect

from spriggan.server import attention
from spriggan.server.tunnel import ASKED_AGAIN_AFTER_S

from .conftest import UPGRADE, Running, head, until
from .double import CAPABILITY, TOKEN

AUTH = {"Authorization": f"Bearer {TOKEN}"}


def opened(server: Running, path: str, headers: dict[str, str] = AUTH) -> ClientConnection:
    return connect(
        f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, proxy=None, max_size=None
    )


def refusal(server: Running, path: str, headers: dict[str, str] = AUTH) -> tuple[int, dict[str, str]]:
    with pytest.raises(InvalidStatus) as caught:
        opened(server, path, headers)
    response = caught.value.response
    assert response.headers["content-type"] == "application/json"
    assert response.headers["sprite-version"] == "v0.1.0"
    assert response.headers["connection"] == "close"
    return response.status_code, json.loads(response.body or b"")


def test_a_command(server: Running, sprite: str) -> None:
    with opened(server, f"/v1/sprites/{sprite}/exec?cmd=hello&cmd=w%C3%B6rld") as ws:
        assert ws.response is not None
        assert ws.response.headers["sprite-version"] == "v0.1.0"
        assert ws.response.headers["x-sprite-capabilities"] == "signal"
        assert json.loads(ws.recv())["type"] == "session_info"
        assert ws.recv() == "\x01hello wörld".encode()
        assert ws.recv() == b"\x03\x00"
        with pytest.raises(ConnectionClosed):
            ws.recv()
        assert ws.close_code == 1000
    until(lambda: not server.engine.awake_now[sprite])


def test_what_reaches_the_pilot(server: Running, sprite: str) -> None:
    headers = {**AUTH, "X-Mine": "1"}
    with opened(server, f"/v1/sprites/{sprite}/exec?cmd=headers", headers) as ws:
        ws.recv()
        shown = json.loads(ws.recv()[1:])
    assert shown["path"] == "/exec"
    assert shown["headers"]["x-mine"] == "1"
    assert "authorization" not in shown["headers"]


def test_attach_by_path(server: Running, sprite: str) -> None:
    with opened(server, f"/v1/sprites/{sprite}/exec/a%20%2e%3F%62?stdin=true") as ws:
        ws.recv()
        assert ws.recv() == b"\x01/exec/a%20.%3Fb"


def test_large_data_both_ways(server: Running, sprite: str) -> None:
    with opened(server, f"/v1/sprites/{sprite}/exec?cmd=cat") as ws:
        ws.recv()
        sent = 40

        def write() -> None:
            for _ in range(sent):
                ws.send(b"\x00" + b"q" * 500_000)
            ws.send(b"\x04")

        writer = threading.Thread(target=write)
        writer.start()
        total = 0
        while (data := ws.recv())[0] != 3:
            total += len(data) - 1
        writer.join()
        assert total == sent * 500_000


def test_a_slow_reader_stops_the_pilot(server: Running, sprite: str) -> None:
    with server.connect() as connection:
        path = f"/v1/sprites/{sprite}/exec?cmd=flood&cmd=300"
        connection.sendall(head("GET", path, *UPGRADE))
        time.sleep(0.5)
        assert server.engine.awake_now[sprite] == 1
        total = 0
        while total < 300 * 65_000:
            total += len(connection.recv(1 << 20))


def test_idle_sockets_stay_and_end_with_the_client(server: Running, sprite: str) -> None:
    with opened(server, f"/v1/sprites/{sprite}/exec?cmd=wait") as ws:
        ws.recv()
        time.sleep(0.3)
        assert ws.ping().wait(30)
        assert server.engine.awake_now[sprite] == 1
        ws.socket.shutdown(socket.SHUT_RDWR)
    until(server.pilot.disconnected.is_set)
    until(lambda: not server.engine.awake_now[sprite])


def test_a_control_connection_holds_the_sprite_only_while_it_is_used(
    server: Running, sprite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "HOLD_S", 0.3)

    def awake() -> bool:
        return bool(server.engine.awake_now[sprite])

    with opened(server, f"/v1/sprites/{sprite}/control") as ws:
        assert awake()
        until(lambda: not awake())
        assert ws.ping().wait(30)
        assert not awake(), "a ping is no use of it"
        for _ in range(5):
            ws.send(b"x" * 100_000)
            assert ws.recv() == b"x" * 100_000
            assert awake()
            time.sleep(0.1)
        until(lambda: not awake())
        ws.send("again")
        assert ws.recv() == "again" and awake()
    until(lambda: not awake())


def test_a_sprite_that_is_gone_ends_its_control_connections(
    server: Running, sprite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "HOLD_S", 0.1)
    with opened(server, f"/v1/sprites/{sprite}/control") as ws:
        until(lambda: not server.engine.awake_now[sprite])
        del server.engine.sprites[sprite]
        ws.send("anybody?")
        with pytest.raises(ConnectionClosed):
            ws.recv(30)


def test_refusals(server: Running, client: httpx.Client, sprite: str) -> None:
    path = f"/v1/sprites/{sprite}/exec?cmd=x"
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        status, body = refusal(server, path, headers)
        assert (status, body["code"]) == (401, "unauthenticated")
    status, body = refusal(server, path, {"Authorization": f"Bearer {CAPABILITY}{sprite}"})
    assert (status, body["code"]) == (403, "forbidden")
    status, body = refusal(
        server, f"/v1/sprites/{sprite}%2Fcheckpoints/exec", {"Authorization": f"Bearer {CAPABILITY}{sprite}"}
    )
    assert (status, body["code"]) == (403, "forbidden")
    status, body = refusal(server, "/v1/sprites/nobody/exec?cmd=x")
    assert (status, body["error"]) == (404, "sprite not found")
    for name in ("%2e%2e", "a%2Fb", "%00", "%ff", "DEV", "x" * 300):
        status, body = refusal(server, f"/v1/sprites/{name}/exec?cmd=x")
        assert (status, body["code"]) == (404, "not_found")
    for other in (
        "/",
        "/v1/sprites/dev",
        "/v1/sprites/dev/control/x",
        "/v1/sprites/dev/fs/read",
        "/v1/sprites/dev/fs%2Fwatch",
        "/v1/sprites/dev/exec/1/kill",
        "/v1/sprites/dev/pilot/status",
        "/v1/sprites/dev/exec/../pilot",
        "/v1/sprites/dev/exec/a%2Fb",
        "/v1/sprites/dev/exec/%2e%2e",
    ):
        status, body = refusal(server, other)
        assert (status, body["code"]) == (404, "no_such_endpoint")
    status, body = refusal(server, f"/v1/sprites/{sprite}/exec?id=nobody")
    assert (status, body["error"]) == (404, "no such session")
    server.engine.pilot_socket = server.engine.pilot_socket.with_name("none.sock")
    status, body = refusal(server, path)
    assert (status, body["code"]) == (503, "unavailable")
    assert not server.engine.awake_now[sprite]


def test_a_long_command_line_passes_and_a_longer_one_is_refused(server: Running, sprite: str) -> None:
    status, body = refusal(server, f"/v1/sprites/{sprite}/exec?cmd=" + "x" * (1 << 20))
    assert (status, body["code"]) == (431, "head_too_large")
    request = head("GET", f"/v1/sprites/nobody/exec?cmd={'x' * 200_000}", *UPGRADE)
    with server.connect() as connection:
        connection.sendall(request)
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")


def test_bad_upgrade_requests(server: Running, sprite: str) -> None:
    for method, host in (("POST", "Host: h"), ("GET", "")):
        with server.connect() as connection:
            connection.sendall(head(method, f"/v1/sprites/{sprite}/exec", *UPGRADE, host=host))
            received = connection.recv(65536)
            assert received.startswith(b"HTTP/1.1 400 "), received
            assert b'"hint"' in received


@pytest.mark.parametrize("line", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_a_body_is_not_taken_for_frames(server: Running, sprite: str, line: str) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=x", *UPGRADE, line))
        received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 400 ") and b"without a body" in received, received
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=x", *UPGRADE, "Content-Length: 0"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")


def test_no_second_request_after_a_refusal(server: Running, sprite: str) -> None:
    """It would reach the pilot without any check."""
    smuggled = "GET /pilot/status HTTP/1.1\r\nHost: h\r\n\r\n"
    with server.connect() as connection:
        path = f"/v1/sprites/{sprite}/exec?id=nobody"
        connection.sendall(head("GET", path, *UPGRADE))
        received = connection.recv(65536)
        try:
            connection.sendall(smuggled.encode())
            while data := connection.recv(65536):
                received += data
        except ConnectionError:
            pass
        assert received.count(b"HTTP/1.1") == 1


def test_over_the_unix_socket(server: Running, sprite: str) -> None:
    path = str(server.unix_socket)
    with unix_connect(path, f"ws://local/v1/sprites/{sprite}/exec?cmd=hi") as ws:
        ws.recv()
        assert ws.recv() == b"\x01hi"
    with pytest.raises(InvalidStatus):
        unix_connect(
            path,
            f"ws://local/v1/sprites/{sprite}/exec?cmd=hi",
            additional_headers={"Authorization": "Bearer no"},
        )


def test_other_upgrades_are_answered_as_plain_requests(server: Running, sprite: str) -> None:
    """curl --http2 asks so."""
    with server.connect() as connection:
        upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAA")
        connection.sendall(head("GET", f"/v1/sprites/{sprite}", *upgrade))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def test_last_words_arrive_while_the_client_still_sends(
    server: Running, sprite: str, listener: socket.socket
) -> None:
    """A command that ends before its input does: its output and exit code must not be lost."""
    for _ in range(20):
        with server.connect() as connection:
            connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=true", *UPGRADE))
            pilot, _ = listener.accept()
            with pilot:
                pilot.recv(65536)
                pilot.sendall(ACCEPTED)
                received = connection.recv(65536)
                stop = threading.Event()

                def send(stop: threading.Event = stop, connection: socket.socket = connection) -> None:
                    with contextlib.suppress(OSError):
                        while not stop.is_set():
                            connection.send(b"i" * 10_000)

                sender = threading.Thread(target=send)
                sender.start()
                pilot.recv(10)
                pilot.sendall(b"o" * 100_000 + b"exit")
            # The pilot is closed now, with input unread.
            try:
                while not received.endswith(b"exit"):
                    data = connection.recv(1000)
                    assert data, f"lost after {len(received)} bytes"
                    received += data
            finally:
                stop.set()
                sender.join()
            assert received.endswith(b"o" * 100_000 + b"exit")


def test_a_pilot_that_does_not_open_the_session(
    server: Running, sprite: str, listener: socket.socket
) -> None:
    for answer, times in ((b"", len(ASKED_AGAIN_AFTER_S)), (b"garbage\r\n\r\n", 1), (b"HTTP/1.1 101 Sw", 1)):
        with server.connect() as connection:
            connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=x", *UPGRADE))
            for _ in range(times):
                pilot, _ = listener.accept()
                pilot.recv(65536)
                pilot.sendall(answer)
                pilot.close()
            received = b""
            while data := connection.recv(65536):
                received += data
            assert received.startswith(b"HTTP/1.1 500 ")
            assert b'"code":"broken"' in received


def test_a_pilot_that_ends_before_it_has_begun_is_followed_by_another(
    server: Running, sprite: str, listener: socket.socket
) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=x", *UPGRADE))
        first, _ = listener.accept()
        asked = first.recv(65536)
        first.close()
        second, _ = listener.accept()
        with second:
            assert second.recv(65536) == asked
            second.sendall(ACCEPTED + b"hello")
            received = b""
            while not received.endswith(b"hello"):
                received += connection.recv(65536)
    assert received.startswith(b"HTTP/1.1 101 ")


def test_bytes_right_after_the_upgrade_arrive_at_once(
    server: Running, sprite: str, listener: socket.socket
) -> None:
    with server.connect() as connection:
        connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=x", *UPGRADE))
        pilot, _ = listener.accept()
        with pilot:
            assert pilot.recv(65536).startswith(b"GET /exec?cmd=x HTTP/1.1\r\n")
            pilot.sendall(ACCEPTED + b"first")
            received = b""
            while not received.endswith(b"first"):
                received += connection.recv(65536)
            connection.sendall(b"second")
            assert pilot.recv(65536) == b"second"
            connection.shutdown(socket.SHUT_WR)
            assert pilot.recv(65536) == b""
            pilot.sendall(b"third")
        assert connection.recv(65536) == b"third"
        assert connection.recv(65536) == b""


@pytest.mark.parametrize(
    ("said", "closing"),
    [
        (b"", True),
        (b"\x82\x03abc", True),
        (b"\x82\x03ab", False),  # in the middle of a frame there is no place for another
        (b"\x82\x7e\x00", False),
        (b"\x82\x03abc\x88\x02\x03\xe8", False),  # closed by the pilot
    ],
)
def test_what_the_pilot_has_not_closed_is_closed(
    server: Running, sprite: str, listener: socket.socket, said: bytes, closing: bool
) -> None:
    for with_head in (True, False):
        with server.connect() as connection:
            connection.sendall(head("GET", f"/v1/sprites/{sprite}/exec?cmd=x", *UPGRADE))
            pilot, _ = listener.accept()
            with pilot:
                pilot.recv(65536)
                pilot.sendall(ACCEPTED + said if with_head else ACCEPTED)
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                if not with_head:
                    pilot.sendall(said)
            while data := connection.recv(65536):
                received += data
        tail = received.partition(b"\r\n\r\n")[2]
        if closing:
            assert tail.startswith(said + b"\x88") and tail[len(said) + 2 :].startswith(b"\x03\xf4the sprite")
        else:
            assert tail == said
