"""Requests by a sprite's URL, against a direct connection to the same listener.

Each direct request has a connection of its own, made in the sprite's own network; by the URL the client's connection is
kept, and the server makes one to the listener for each request. Both are answered by the same program, with 64 bytes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import serving
from bench.figures import Row
from bench.peers import timed
from bench.setting import Product, Setting
from spriggan.linux import namespaces

NAME = "url"
PORT = 9000
REQUESTS = 20  # one after another, in each round
AT_ONCE = 8
EACH = 25  # requests of each of those that ask at the same time
# Reads one head, answers, and closes.
LISTENER = f"""
import socket, threading
def serve(connection):
    with connection:
        data = b""
        while b"\\r\\n\\r\\n" not in data:
            data += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 64\\r\\nConnection: close\\r\\n\\r\\n" + b"x" * 64)
listener = socket.create_server(("127.0.0.1", {PORT}), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

Request = Callable[[], None]


class Visitor:
    """Asks at the URL, on one connection."""

    def __init__(self, product: Product) -> None:
        self._socket = socket.create_connection(("127.0.0.1", product.server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = f"Host: {NAME}.sprites.localhost\r\nAuthorization: Bearer {product.server.token}"
        self._head = f"GET / HTTP/1.1\r\n{host}\r\n\r\n".encode()

    def __call__(self) -> None:
        self._socket.sendall(self._head)
        _read(self._socket)


class Direct:
    """Asks in the sprite's network, with a new connection each time."""

    def __init__(self, netns: int) -> None:
        self._netns = netns

    def __call__(self) -> None:
        with namespaces.in_network(
            self._netns, lambda: socket.create_connection(("127.0.0.1", PORT))
        ) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: direct\r\n\r\n")
            _read(connection)


def measure(setting: Setting) -> list[Row]:
    with setting.product() as product, product.sprite(NAME) as sprite:
        sprite.create_service("listener", "python3", ["-c", LISTENER], http_port=PORT, duration=2)
        netns = os.open(f"/proc/{product.init()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            direct, by_url = _both(setting, lambda: Direct(netns), lambda: Visitor(product))
        finally:
            os.close(netns)
    rows: list[Row] = []
    for what, found in direct.items():
        rate = what != "a request"
        unit = "/s" if rate else "ms"
        floor = Row(f"direct: {what}", found, unit, more_is_better=rate)
        rows += [floor, Row(f"URL: {what}", by_url[what], unit, against=floor, more_is_better=rate)]
    return rows


def _both(
    setting: Setting, direct: Callable[[], Request], by_url: Callable[[], Request]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    found: tuple[dict[str, list[float]], dict[str, list[float]]] = ({}, {})
    serving.until(lambda: _answers(by_url))
    for number in range(setting.rounds):
        for figures, make in zip(found, (direct, by_url), strict=True):
            request = make()
            request()
            figures.setdefault("a request", []).extend(timed(request) for _ in range(REQUESTS))
            if number < setting.some(4):
                figures.setdefault(f"requests, {AT_ONCE} at a time", []).append(_rate(make))
    return found


def _rate(make: Callable[[], Request]) -> float:
    """Requests in a second."""

    def ask(request: Request) -> None:
        for _ in range(EACH):
            request()

    askers = [make() for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        begin = time.perf_counter()
        list(threads.map(ask, askers))
        return AT_ONCE * EACH / (time.perf_counter() - begin)


def _answers(make: Callable[[], Request]) -> bool:
    try:
        make()()
    except RuntimeError:
        return False
    return True


def _read(connection: socket.socket) -> None:
    """Read one answer. Raises ``RuntimeError`` if it is none of the listener's."""
    data = b""
    while not data.endswith(b"x" * 64):
        more = connection.recv(65536)
        if not more or not data.startswith(b"HTTP/1.1 200"[: len(data)]):
            raise RuntimeError(f"not answered: {data[:200]!r}")
        data += more
