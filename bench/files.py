"""A file of 1 GiB, into a sprite and out of it.

By curl, from a file and to a file, as ``podman cp`` does it. What is written into a sprite is synced before it is
answered; ``podman cp`` leaves that to the kernel, so it is held against ``podman cp`` and a sync as well.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import serving
from bench.figures import Row
from bench.peers import timed
from bench.setting import Product, Setting

BYTES = 1 << 30
INSIDE = "/home/sprite/file"


def measure(setting: Setting) -> list[Row]:
    podman = setting.podman
    source, target = setting.directory / "file", setting.directory / "back"
    with source.open("wb") as file:
        for _ in range(BYTES >> 20):
            file.write(os.urandom(1 << 20))
    into: list[float] = []
    synced: list[float] = []
    out: list[float] = []
    up: list[float] = []
    down: list[float] = []

    def note(found: list[float], milliseconds: float) -> None:
        found.append(BYTES / (1 << 20) / milliseconds * 1000)

    try:
        with setting.product() as product, product.sprite("files") as sprite:
            podman.start("files")
            for _ in range(setting.some(6)):
                copied = timed(lambda: podman.call("cp", str(source), f"files:{INSIDE}"))
                note(into, copied)
                note(synced, copied + timed(lambda: podman.exec("files", "sync", INSIDE)))
                note(up, timed(lambda: _upload(product, source)))
                note(out, timed(lambda: podman.call("cp", f"files:{INSIDE}", str(target))))
                target.unlink()
                note(down, timed(lambda: _download(product, target)))
                if target.stat().st_size != BYTES:
                    raise RuntimeError(f"{target.stat().st_size} of {BYTES} bytes came back")
                target.unlink()
                podman.exec("files", "rm", INSIDE)
                serving.run(sprite, f"rm {INSIDE}")
            podman.remove("files")
    finally:
        source.unlink()
        target.unlink(missing_ok=True)
    peer = Row("podman cp, into it", into, "MiB/s", more_is_better=True)
    safe = Row("podman cp, into it, and sync", synced, "MiB/s", more_is_better=True)
    peer_out = Row("podman cp, out of it", out, "MiB/s", more_is_better=True)
    return [
        peer,
        safe,
        Row("upload, synced", up, "MiB/s", against=peer, more_is_better=True),
        Row("the same, against what is synced, too", up, "MiB/s", against=safe, more_is_better=True),
        peer_out,
        Row("download", down, "MiB/s", against=peer_out, more_is_better=True),
    ]


def _upload(product: Product, source: Path) -> None:
    _curl(product, "write", "--upload-file", str(source))


def _download(product: Product, target: Path) -> None:
    _curl(product, "read", "--output", str(target))


def _curl(product: Product, endpoint: str, *options: str) -> None:
    url = f"{product.server.url}/v1/sprites/files/fs/{endpoint}?path={INSIDE}"
    command = [
        "curl",
        "-sS",
        "--fail-with-body",
        "-H",
        f"Authorization: Bearer {product.server.token}",
        *options,
    ]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"curl: {done.stderr.strip()} {done.stdout.strip()}")
