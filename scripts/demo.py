"""The main job, with the official Sprites client (sprites-py) against a Spriggan server."""

from __future__ import annotations

import hashlib
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sprites import Sprite, SpritesClient

SOURCE = '#include <stdio.h>\nint main(void) { puts("compiled inside"); return 0; }\n'
LOOK = "find /home/sprite /usr/lib/python3 -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print ``what`` with the time it took."""
    start = time.perf_counter()
    yield
    print(f"{(time.perf_counter() - start) * 1000:8.0f} ms  {what}", flush=True)


def shell(sprite: Sprite, script: str) -> str:
    """Run a script in the sprite; stop the demo if it fails."""
    done = sprite.run("sh", "-c", script, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{script!r} failed with {done.returncode}: {done.stderr.decode()}")
    return str(done.stdout.decode().strip())


def finish(messages: Any) -> None:
    """Read a checkpoint or restore stream to its end; stop the demo if it reports an error."""
    for message in messages:
        if message.type == "error":
            sys.exit(f"failed: {message.error}")


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        sys.exit(f"{what}: expected {wanted!r}, found {found!r}")


def main() -> None:
    url, token = os.environ["SPRITES_API_URL"], os.environ["SPRITE_TOKEN"]
    client = SpritesClient(token, base_url=url)
    with step("create a sprite"):
        sprite = client.create_sprite("demo")
    with step("first command: it wakes from cold"):
        print("           ", shell(sprite, "echo $(whoami) on $(hostname), $(nproc) cores"))
    with step("another command"):
        shell(sprite, "true")
    files = sprite.filesystem("/home/sprite")
    data = os.urandom(1 << 20)
    with step("write a source file and 1 MiB of data through the file API"):
        (files / "hello.c").write_text(SOURCE)
        (files / "data.bin").write_bytes(data)
    with step("compile and run it inside"):
        expect(shell(sprite, "cd ~ && cc -O2 -o hello hello.c && ./hello"), "compiled inside", "the program")
    before = shell(sprite, LOOK)
    with step("checkpoint"):
        finish(sprite.create_checkpoint("before the accident"))
    with step("break it: sudo rm -rf /usr/lib/python3 /home/sprite"):
        shell(sprite, "cd / && sudo rm -rf /usr/lib/python3 /home/sprite")
    with step("restore v1"):
        finish(sprite.restore_checkpoint("v1"))
    with step("look: every file is back, byte for byte"):
        expect(shell(sprite, LOOK), before, "the checksum of all files")
        digest = hashlib.sha256((files / "data.bin").read_bytes()).hexdigest()
        expect(digest, hashlib.sha256(data).hexdigest(), "the data")
    with step("fork it"):
        request = urllib.request.Request(
            f"{url}/v1/sprites/demo/fork",
            b'{"name": "demo-fork"}',
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
    fork = client.get_sprite("demo-fork")
    with step("run both: they go separate ways"):
        shell(sprite, "echo one > ~/side")
        shell(fork, "echo two > ~/side")
        expect(shell(sprite, "cat ~/side; hostname"), "one\ndemo", "the first")
        expect(shell(fork, "cat ~/side; hostname; ~/hello"), "two\ndemo-fork\ncompiled inside", "the fork")
    with step("destroy both"):
        fork.delete()
        sprite.delete()
    print("All of it worked.")


main()
