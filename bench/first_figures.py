"""First figures: a sprite against the bare floor, in one run.

The floor is what the kernel and crun need alone: ``crun run`` and ``crun exec`` of a plain bundle on
an overlay of the same layers, with no network, no disk image and no server. For a checkpoint it is
one fsync of the same 64 MiB on the host's file system.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import serving
from spriggan.linux import cgroup, namespaces
from spriggan.linux.mount import MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount

ROUNDS = 15
DIRTY = 64 << 20


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


class Floor:
    """A bundle on an overlay of the image's layers, run by crun as it is."""

    def __init__(self, layers: list[str], directory: Path) -> None:
        self._directory = directory
        for name in ("upper", "work", "rootfs"):
            (directory / name).mkdir()
        options = f"lowerdir={':'.join(layers)},upperdir={directory}/upper,workdir={directory}/work"
        mount("overlay", directory / "rootfs", "overlay", 0, options)
        subprocess.run(["crun", "spec"], cwd=directory, check=True)
        file = directory / "config.json"
        config = json.loads(file.read_text())
        config["process"] |= {"terminal": False, "args": ["tail", "-f", "/dev/null"]}
        config["root"]["readonly"] = False
        file.write_text(json.dumps(config))

    def run(self, name: str) -> None:
        self._crun("run", "--detach", "--bundle", str(self._directory), name)
        self.exec(name)

    def exec(self, name: str) -> None:
        self._crun("exec", name, "true")

    def delete(self, name: str) -> None:
        self._crun("delete", "--force", name)

    def _crun(self, *arguments: str) -> None:
        command = ["crun", "--root", f"{self._directory}/state", *arguments]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def fsync_floor(directory: Path) -> float:
    with (directory / "dirty").open("wb") as file:
        file.write(os.urandom(DIRTY))
        file.flush()
        return timed(lambda: os.fsync(file.fileno()))


def main() -> None:
    figures: dict[str, list[float]] = {}

    def note(what: str, milliseconds: float) -> None:
        figures.setdefault(what, []).append(milliseconds)

    with serving.server() as server:
        server.start()
        client = server.client()
        client.create_sprite("warm-up").run("true")
        layers = [str(path) for path in sorted((server.data / "images" / "mounts").iterdir())]
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        host = cgroup.hierarchies()
        if host.kind == "hybrid" and host.unified:
            umount(host.unified, MNT_DETACH)
        directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
        try:
            floor = Floor(layers, directory)
            for number in range(ROUNDS):
                name = f"b{number}"
                note("floor: crun run + exec", timed(lambda name=name: floor.run(name)))
                note("floor: crun exec", timed(lambda name=name: floor.exec(name)))
                floor.delete(name)
                note(
                    "create -> first command", timed(lambda name=name: client.create_sprite(name).run("true"))
                )
                sprite = client.get_sprite(name)
                note("exec round trip", timed(lambda sprite=sprite: sprite.run("true")))
                note("floor: fsync of 64 MiB", fsync_floor(directory))
                serving.run(sprite, f"head -c {DIRTY} /dev/urandom > dirty")
                note(
                    "checkpoint, 64 MiB dirty",
                    timed(lambda s=sprite: serving.finished(s.create_checkpoint(""))),
                )
                note("restore", timed(lambda s=sprite: serving.finished(s.restore_checkpoint("v1"))))
                sprite.delete()
        finally:
            subprocess.run(["umount", "-l", str(directory / "rootfs")], check=False)
            shutil.rmtree(directory, ignore_errors=True)
        client.get_sprite("warm-up").delete()
    pairs = {
        "create -> first command": "floor: crun run + exec",
        "exec round trip": "floor: crun exec",
        "checkpoint, 64 MiB dirty": "floor: fsync of 64 MiB",
        "restore": "floor: crun run + exec",
    }
    print("| what | p50 ms | p95 ms | p99 ms | against |\n|---|---|---|---|---|")
    for what, values in figures.items():
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        peer = pairs.get(what)
        ratio = f"{statistics.median(values) / statistics.median(figures[peer]):.2f} x {peer}" if peer else ""
        print(f"| {what} | {cuts[49]:.1f} | {cuts[94]:.1f} | {cuts[98]:.1f} | {ratio} |")
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "first_figures.json").write_text(json.dumps(figures, indent=1))


main()
