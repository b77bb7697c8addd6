"""1 GiB that a command writes to its standard output.

Once into a bare reader that throws it away (``websockets`` for us, a pipe for podman), once into a client that
keeps all of it (the official one; Python's ``subprocess``).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from websockets.sync.client import connect

from bench.figures import Row
from bench.peers import Podman, timed
from bench.setting import Product, Setting

BYTES = 1 << 30
COMMAND = ["head", "-c", str(BYTES), "/dev/zero"]
READ_BYTES = 64 << 10


def measure(setting: Setting) -> list[Row]:
    podman = setting.podman
    figures: list[list[float]] = [[], [], [], []]
    with setting.product() as product, product.sprite("stream") as sprite:
        podman.start("stream")
        ways = (
            lambda: _pipe(podman),
            lambda: _websocket(product),
            lambda: _subprocess(podman),
            lambda: _official(sprite),
        )
        for _ in range(setting.some(4)):
            for found, way in zip(figures, ways, strict=True):
                found.append(BYTES / (1 << 20) / timed(way) * 1000)
        podman.remove("stream")
    pipe, socket, all_podman, all_official = figures
    thrown = Row("podman exec into a pipe", pipe, "MiB/s", more_is_better=True)
    kept = Row("podman exec, all of it kept", all_podman, "MiB/s", more_is_better=True)
    return [
        thrown,
        Row("exec into a bare WebSocket", socket, "MiB/s", against=thrown, aim=0.3, more_is_better=True),
        kept,
        Row("exec into the official client", all_official, "MiB/s", against=kept, more_is_better=True),
    ]


def _pipe(podman: Podman) -> None:
    with podman.reading("stream", *COMMAND) as process:
        assert process.stdout is not None
        size = 0
        while data := process.stdout.read(READ_BYTES):
            size += len(data)
    _whole(size, process.returncode)


def _subprocess(podman: Podman) -> None:
    with podman.reading("stream", *COMMAND) as process:
        output, _ = process.communicate()
    _whole(len(output), process.returncode)


def _websocket(product: Product) -> None:
    query = urlencode([("cmd", word) for word in COMMAND] + [("stdin", "false")])
    url = f"{product.server.url.replace('http', 'ws', 1)}/v1/sprites/stream/exec?{query}"
    headers = {"Authorization": f"Bearer {product.server.token}"}
    size, code = 0, -1
    with connect(url, additional_headers=headers, compression=None, max_size=None, close_timeout=0) as socket:
        while code < 0:
            message = socket.recv()
            if isinstance(message, bytes):
                if message[0] == 1:
                    size += len(message) - 1
                elif message[0] == 3:
                    code = message[1]
    _whole(size, code)


def _official(sprite: Any) -> None:
    done = sprite.run(*COMMAND, capture_output=True)
    _whole(len(done.stdout), done.returncode)


def _whole(size: int, code: int) -> None:
    if (size, code) != (BYTES, 0):
        raise RuntimeError(f"{size} of {BYTES} bytes arrived, exit code {code}")
