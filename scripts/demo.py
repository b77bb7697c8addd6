"""The main job, as a user of the official Python client writes it: every step with its time."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sprites import Sprite, SpritesClient

# Files and their contents, all of them, in one number.
CHECKSUM = "find /usr/lib/python3 /home/sprite -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"
BREAK = "sudo rm -rf /usr/lib/python3 /home/sprite"

PROGRAM = r"""
#include <stdio.h>
int main(void) {
    int count = 0;
    for (int n = 2; n < 200000; n++) {
        int prime = 1;
        for (int d = 2; d * d <= n && prime; d++) prime = n % d != 0;
        count += prime;
    }
    printf("%d primes below 200000\n", count);
    return 0;
}
"""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Print ``what`` with the time that the block took."""
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:8.3f} s  {what}", flush=True)


def shell(sprite: Sprite, script: str) -> str:
    """Run ``script`` in the sprite; return what it printed. Fails if it does."""
    return str(sprite.command("sh", "-c", script, cwd="/").output().decode().strip())


def expect(condition: bool, what: str) -> None:
    """End the demo, with a reason, if something is not as it must be."""
    if not condition:
        sys.exit(f"the demo failed: {what}")


def consume(stream: object) -> None:
    """Read a stream of progress to its end; an error in it is an error."""
    for message in stream:  # type: ignore[attr-defined]
        expect(message.type != "error", str(message.error))


def main() -> None:
    with SpritesClient(os.environ["SPRITE_TOKEN"], os.environ["SPRITES_API_URL"], timeout=60) as client:
        with step("created a sprite"):
            dev = client.create_sprite("demo")
        with step("first command in it"):
            print(f"            {shell(dev, 'whoami; uname -sr; pwd')!r}")
        with step("second command"):
            expect(dev.run("true").returncode == 0, "true is not true")
        files = dev.filesystem("/home/sprite")
        with step("wrote three files through the file system API"):
            (files / "project/primes.c").write_text(PROGRAM)
            data = os.urandom(1 << 20)
            (files / "project/data.bin").write_bytes(data)
            (files / "notes.txt").write_text("before the accident\n")
        with step("compiled a C program with the image's gcc and ran it"):
            printed = shell(dev, "cd /home/sprite/project && gcc -O2 -o primes primes.c && ./primes")
            expect(printed == "17984 primes below 200000", printed)
        before = shell(dev, CHECKSUM)
        with step("made a checkpoint"):
            consume(dev.create_checkpoint("all is well"))
        checkpoint = next(c.id for c in dev.list_checkpoints() if c.id != "Current")
        with step(f"broke it thoroughly: {BREAK}"):
            shell(dev, BREAK)
        broken = shell(dev, "ls /home/sprite/project 2>&1; python3 -m pip --version 2>&1; echo")
        expect("No such file" in broken and "No module named pip" in broken, f"it is not broken: {broken}")
        with step(f"restored {checkpoint}"):
            consume(dev.restore_checkpoint(checkpoint))
        with step("checked that every file is back, by checksum"):
            expect(shell(dev, CHECKSUM) == before, "the checksums differ")
            expect((files / "project/data.bin").read_bytes() == data, "data.bin differs")
            expect((files / "notes.txt").read_text() == "before the accident\n", "notes.txt differs")
            expect("pip" in shell(dev, "python3 -m pip --version"), "pip is not back")
            expect("primes" in shell(dev, "/home/sprite/project/primes"), "the program does not run")
        with step("forked it while it runs (our extension)"):
            # The official client has no method for this; its connection serves.
            url = f"{client.base_url}/v1/sprites/demo/fork"
            answer = client.http_client.post(url, json={"name": "demo-fork"})
            expect(answer.status_code == 201, answer.text)
        fork = client.sprite("demo-fork")
        with step("ran both sides, which go their own ways"):
            shell(dev, "echo here > /home/sprite/side")
            shell(fork, "echo there > /home/sprite/side")
            sides = [shell(side, "hostname; cat /home/sprite/side").split() for side in (dev, fork)]
            expect(sides == [["demo", "here"], ["demo-fork", "there"]], str(sides))
        with step("destroyed both"):
            dev.destroy()
            fork.destroy()
        expect(client.list_all_sprites() == [], "sprites are left")
    print("All is well.")


main()
