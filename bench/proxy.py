"""TCP through the proxy, against a direct connection to the same listener.

The direct connection is a socket made in the sprite's own network. The client of the proxy is the ``websockets`` library;
what it costs is part of the figures.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Protocol

from websockets.sync.client import ClientConnection, connect

import serving
from bench.figures import Row
from bench.peers import timed
from bench.setting import Product, Setting
from spriggan.linux import namespaces

PORT = 9000
ROUND_TRIPS = 50  # of each round
BYTES = 1 << 28
CHUNK = 1 << 18
# First eight bytes each: how many it is to take, and how many to give. Then it takes, gives, and so on.
LISTENER = f"""
import socket, threading
def serve(connection):
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        takes, gives = (int.from_bytes(connection.recv(8, socket.MSG_WAITALL)) for _ in "12")
        chunk = b"x" * min(gives, {CHUNK})
        while True:
            left = takes
            while left:
                data = connection.recv(min(left, {CHUNK}))
                if not data:
                    return
                left -= len(data)
            for _ in range(gives // len(chunk)):
                connection.sendall(chunk)
listener = socket.create_server(("127.0.0.1", {PORT}), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Line(Protocol):
    """A connection to the listener."""

    def send(self, data: bytes) -> None: ...

    def receive(self, size: int) -> None: ...

    def close(self) -> None: ...


class Direct:
    """A socket in the sprite's network."""

    def __init__(self, netns: int) -> None:
        self._socket = namespaces.in_network(netns, lambda: socket.create_connection(("127.0.0.1", PORT)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, size: int) -> None:
        while size:
            data = self._socket.recv(min(size, CHUNK))
            if not data:
                raise RuntimeError("the listener has gone")
            size -= len(data)

    def close(self) -> None:
        self._socket.close()


class Proxied:
    """A connection through server and pilot."""

    def __init__(self, product: Product) -> None:
        url = f"{product.server.url.replace('http', 'ws', 1)}/v1/sprites/proxy/proxy"
        headers = {"Authorization": f"Bearer {product.server.token}"}
        self._socket: ClientConnection = connect(
            url, additional_headers=headers, compression=None, max_size=None, close_timeout=0
        )
        self._socket.send(json.dumps({"port": PORT}))
        answer = json.loads(self._socket.recv())
        if answer["status"] != "connected":
            raise RuntimeError(str(answer))

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def receive(self, size: int) -> None:
        while size:
            size -= len(self._socket.recv())

    def close(self) -> None:
        self._socket.close()


def measure(setting: Setting) -> list[Row]:
    with setting.product() as product, product.sprite("proxy") as sprite:
        sprite.create_service("listener", "python3", ["-c", LISTENER], http_port=PORT, duration=2)
        netns = os.open(f"/proc/{product.init()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            direct, proxied = _both(setting, lambda: Direct(netns), lambda: Proxied(product))
        finally:
            os.close(netns)
    rows: list[Row] = []
    for what, found in direct.items():
        unit = "MiB/s" if what in ("download", "upload") else "ms"
        floor = Row(f"direct: {what}", found, unit, more_is_better=unit != "ms")
        rows += [
            floor,
            Row(f"proxy: {what}", proxied[what], unit, against=floor, more_is_better=unit != "ms"),
        ]
    return rows


def _both(
    setting: Setting, direct: Callable[[], Line], proxied: Callable[[], Line]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    found: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    serving.until(lambda: _connects(direct))
    for number in range(setting.rounds):
        for figures, make in zip(found, (direct, proxied), strict=True):
            figures.setdefault("connect, and a byte there and back", []).append(_first_byte(make))
            figures.setdefault("a byte there and back", []).extend(_round_trips(make))
            if number < setting.some(4):
                figures.setdefault("download", []).append(_download(make))
                figures.setdefault("upload", []).append(_upload(make))
    return found


def _connects(make: Callable[[], Line]) -> bool:
    try:
        make().close()
    except ConnectionRefusedError:
        return False
    return True


def _line(make: Callable[[], Line], takes: int, gives: int) -> AbstractContextManager[Line]:
    line = make()
    line.send(takes.to_bytes(8) + gives.to_bytes(8))
    return closing(line)


def _first_byte(make: Callable[[], Line]) -> float:
    start = time.perf_counter()
    with _line(make, 1, 1) as line:
        line.send(b"x")
        line.receive(1)
        return (time.perf_counter() - start) * 1000


def _round_trips(make: Callable[[], Line]) -> list[float]:
    with _line(make, 1, 1) as line:

        def trip() -> None:
            line.send(b"x")
            line.receive(1)

        trip()
        return [timed(trip) for _ in range(ROUND_TRIPS)]


def _download(make: Callable[[], Line]) -> float:
    with _line(make, 1, BYTES) as line:
        line.send(b"x")
        return _rate(timed(lambda: line.receive(BYTES)))


def _upload(make: Callable[[], Line]) -> float:
    chunk = b"x" * CHUNK

    def send() -> None:
        for _ in range(BYTES // CHUNK):
            line.send(chunk)
        line.receive(1)

    with _line(make, BYTES, 1) as line:
        return _rate(timed(send))


def _rate(milliseconds: float) -> float:
    return BYTES / (1 << 20) / milliseconds * 1000
