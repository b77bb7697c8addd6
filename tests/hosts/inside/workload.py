"""Inside a guest: keep a server busy with everything it promises to keep, and report each promise.

Usage: workload.py DATA [FAULT…]. With fault points (``create:disk``) the server dies at each of them in
turn, during that operation, and is started again; then, and without any, everything at once goes on until
the machine is switched off.
"""

from __future__ import annotations

import hashlib
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "tests"))

from reports import Reports  # noqa: E402

import serving  # noqa: E402

IDLE = ("--idle", "5")  # seconds: some sprites stand still when the power goes

# Appends numbered lines, each fsynced before its number is printed.
DIARY = """
import os, time
fd = os.open("diary", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    os.write(fd, b"%d %d\\n" % (number, number * 7919))
    os.fsync(fd)
    print(number, flush=True)
    number += 1
    time.sleep(0.05)
"""


class Workload:
    """Changes, each reported, of sprites on one server."""

    def __init__(self, server: serving.Server, reports: Reports) -> None:
        self.server = server
        self.reports = reports
        self.client = server.client(timeout=120)
        self._random = random.Random(1)

    def create(self, name: str) -> Any:
        with self.reports.change("create", name):
            return self.client.create_sprite(name)

    def destroy(self, name: str) -> None:
        with self.reports.change("destroy", name), self.server.http() as http:
            http.delete(f"/v1/sprites/{name}").raise_for_status()

    def write(self, name: str, path: str, size: int) -> None:
        data = self._random.randbytes(size)
        digest = hashlib.sha256(data).hexdigest()
        with self.reports.change("write", name, path=path, digest=digest), self.server.http() as http:
            target = f"/v1/sprites/{name}/fs/write?path=/home/sprite/{path}"
            http.put(target, content=data).raise_for_status()

    def checkpoint(self, name: str) -> str:
        with self.reports.change("checkpoint", name) as learned:
            said = serving.finished(self.client.sprite(name).create_checkpoint(""))
            learned["id"] = next(line for line in said if "ID: " in line).split()[-1]
        return str(learned["id"])

    def delete_checkpoint(self, name: str, checkpoint: str) -> None:
        with self.reports.change("delete_checkpoint", name, id=checkpoint), self.server.http() as http:
            http.delete(f"/v1/sprites/{name}/checkpoints/{checkpoint}").raise_for_status()

    def restore(self, name: str, checkpoint: str) -> None:
        with self.reports.change("restore", name, id=checkpoint):
            serving.finished(self.client.sprite(name).restore_checkpoint(checkpoint))

    def fork(self, name: str, new: str) -> None:
        with self.reports.change("fork", new, source=name), self.server.http() as http:
            http.post(f"/v1/sprites/{name}/fork", json={"name": new}).raise_for_status()

    def life(self, name: str) -> None:
        """One sprite with everything that can happen to it; its fork stays."""
        self.create(name)
        self.write(name, "state", 5000)
        self.checkpoint(name)
        self.write(name, "state", 300_000)
        self.checkpoint(name)
        self.restore(name, "v1")
        self.fork(name, f"{name}-fork")
        self.delete_checkpoint(name, "v2")
        self.write(f"{name}-fork", "state", 40_000)
        self.destroy(name)

    def prepare(self) -> None:
        """Sprites for the jobs below, running: in software, waking several at once tries clients' patience."""
        for name in ("files", "diary", "filler"):
            self.create(name)
            self.write(name, "first", 10)

    def keep_living(self) -> None:
        for number in range(1000):
            self.life(f"life-{number}")
            if number:
                self.destroy(f"life-{number - 1}-fork")

    def keep_writing(self) -> None:
        for number in range(1_000_000):
            self.write("files", f"f{number % 7}", self._random.choice((0, 1, 4096, 70_000, 1_500_000)))

    def keep_diary(self) -> None:
        command = self.client.sprite("diary").command("python3", "-c", DIARY, cwd="/home/sprite")
        command.stdout = _Lines(lambda line: self.reports.say("diary", sprite="diary", number=int(line)))
        command.run()

    def keep_filling(self) -> None:
        """Writes that nobody is promised anything about: they get the caches going."""
        script = "while sleep 1; do head -c 20000000 /dev/urandom >$((n = (n + 1) % 5)); done"
        self.client.sprite("filler").run("sh", "-c", script)


class _Lines:
    """A stream for the official client that hands on whole lines."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._pending = b""

    def write(self, data: bytes) -> int:
        self._pending += data
        *lines, self._pending = self._pending.split(b"\n")
        for line in lines:
            self._take(line)
        return len(data)

    def flush(self) -> None:
        pass


def die_at(point: str, server: serving.Server, reports: Reports) -> None:
    """Have the running server's successor die at ``point`` of a change, and start another."""
    name = point.replace(":", "-").replace("_", "-")
    before = Workload(server, reports)
    before.create(name)
    before.write(name, "state", 9000)
    before.checkpoint(name)
    before.write(name, "state", 90_000)
    before.checkpoint(name)
    before.write(name, "state", 900)
    server.stop()
    server.start(*IDLE, "--spares", "0", SPRIGGAN_FAULT=point)  # a spare is made by a create of fewer points
    doomed = Workload(server, reports)
    changes: dict[str, Callable[[], object]] = {
        "create": lambda: doomed.create(f"{name}-new"),
        "fork": lambda: doomed.fork(name, f"{name}-new"),
        "checkpoint": lambda: doomed.checkpoint(name),
        "restore": lambda: doomed.restore(name, "v1"),
        "destroy": lambda: doomed.destroy(name),
        "delete_checkpoint": lambda: doomed.delete_checkpoint(name, "v1"),
    }
    try:
        changes[point.partition(":")[0]]()
    except Exception as error:  # the client's or httpx's, of a connection that broke
        reports.say("died", point=point, error=repr(error))
    else:
        raise AssertionError(f"the server passed {point}")
    server.wait_killed()
    server.start(*IDLE)
    after = Workload(server, reports)
    for sprite in after.client.list_all_sprites():
        after.destroy(sprite.name)


def main() -> None:
    data, points = Path(sys.argv[1]), sys.argv[2:]
    reports = Reports()
    server = serving.Server(data)
    serving.link_images(data)
    server.start(*IDLE)
    for point in points:
        die_at(point, server, reports)
    work = Workload(server, reports)
    work.prepare()
    reports.say("busy")
    for job in (work.keep_living, work.keep_writing, work.keep_diary, work.keep_filling):
        threading.Thread(target=_to_the_end, args=(job, reports), daemon=True).start()
    time.sleep(3600)


def _to_the_end(job: Callable[[], None], reports: Reports) -> None:
    try:
        job()
    except BaseException as error:
        reports.say("failed", job=job.__name__, error=repr(error))
        raise


if __name__ == "__main__":
    main()
