"""TCP through the proxy against a direct connection to the same listener, in one run.

The direct connection is a socket made in the sprite's own network namespace. The client of the proxy
is the ``websockets`` library; what it costs is part of the figures.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from websockets.sync.client import ClientConnection, connect

import serving
from spriggan.linux import namespaces

CONNECTIONS = 100
ROUND_TRIPS = 1000
BYTES = 1 << 30
# Answers each byte with as many bytes as were asked for before, in eight bytes.
SERVER = """
import socket, threading
def serve(connection):
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL))
        chunk = b"x" * min(size, 1 << 20)
        while connection.recv(1):
            for _ in range(size // len(chunk)):
                connection.sendall(chunk)
listener = socket.create_server(("127.0.0.1", 9000), backlog=100)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class Direct:
    """A socket in the sprite's network."""

    def __init__(self, netns: int) -> None:
        self._socket = namespaces.in_network(netns, lambda: socket.create_connection(("127.0.0.1", 9000)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self, size: int) -> None:
        while size:
            size -= len(self._socket.recv(min(size, 1 << 20)))

    def close(self) -> None:
        self._socket.close()


class Proxied:
    """A connection through server and pilot."""

    def __init__(self, server: serving.Server, name: str) -> None:
        url = f"{server.url.replace('http', 'ws')}/v1/sprites/{name}/proxy"
        headers = {"Authorization": f"Bearer {server.token}"}
        self._socket: ClientConnection = connect(
            url, additional_headers=headers, compression=None, max_size=None
        )
        self._socket.send(json.dumps({"port": 9000}))
        assert json.loads(self._socket.recv())["status"] == "connected"

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def receive(self, size: int) -> None:
        while size:
            size -= len(self._socket.recv())

    def close(self) -> None:
        self._socket.close()


def measure(make: Callable[[], Any]) -> dict[str, float]:
    first, trips = [], []
    for _ in range(CONNECTIONS):
        start = time.perf_counter()
        connection = make()
        connection.send((1).to_bytes(8) + b"x")
        connection.receive(1)
        first.append(time.perf_counter() - start)
        connection.close()
    connection = make()
    connection.send((1).to_bytes(8))
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        connection.send(b"x")
        connection.receive(1)
        trips.append(time.perf_counter() - start)
    connection.close()
    connection = make()
    connection.send(BYTES.to_bytes(8) + b"x")
    start = time.perf_counter()
    connection.receive(BYTES)
    throughput = BYTES / (time.perf_counter() - start) / 1e6
    connection.close()
    return {
        "connect and first byte, ms": statistics.median(first) * 1000,
        "round trip, ms": statistics.median(trips) * 1000,
        "download of 1 GiB, MB/s": throughput,
    }


def main() -> None:
    with serving.server() as server:
        server.start()
        sprite = server.client().create_sprite("bench")
        sprite.create_service("server", "python3", ["-c", SERVER], http_port=9000, duration=2)
        runtime = Path(f"/run/spriggan/{server.instance}")
        [spec] = [json.loads(path.read_text()) for path in runtime.glob("*/spec.json")]
        state = json.loads((Path(spec["containers_dir"]) / spec["sprite_id"] / "status").read_text())
        netns = os.open(f"/proc/{state['pid']}/ns/net", os.O_RDONLY)
        direct = measure(lambda: Direct(netns))
        proxied = measure(lambda: Proxied(server, "bench"))
    print("| what | direct | proxy | ratio |\n|---|---|---|---|")
    for what, figure in direct.items():
        print(f"| {what} | {figure:.2f} | {proxied[what]:.2f} | {proxied[what] / figure:.2f} |")


if __name__ == "__main__":
    main()
