"""What the disk room costs: create, checkpoint under a writer, restore, and how fast a disk is written.

PYTHONPATH=src python bench/disk.py [DIRECTORY]      (as root; DIRECTORY on the file system to measure)
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from spriggan.disk import Pool
from spriggan.linux import loop, mount

ROUNDS = 10
MIB = 1 << 20

WRITER = """
import os, sys, time
blob, worst, last = os.urandom(65536), 0.0, time.monotonic()
end = last + 0.8
with open(sys.argv[1], "wb", buffering=0) as file:
    while last < end:
        file.write(blob)
        now = time.monotonic()
        worst, last = max(worst, now - last), now
        if file.tell() > 60 << 20:
            file.seek(0)
print(worst * 1000)
"""


def milliseconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return (time.monotonic() - start) * 1000


def show(what: str, values: list[float], unit: str = "ms") -> None:
    print(f"{what:<34} median {statistics.median(values):8.1f}  max {max(values):8.1f} {unit}")


def measure(pool: Pool, place: Path) -> None:
    pool.create_disk("warm-up", 20)
    show("create", [milliseconds(lambda n=n: pool.create_disk(f"sprite-{n}", 20)) for n in range(ROUNDS)])
    with loop.attach(pool.disk_path("sprite-0")) as device:
        mount.mount(device, place, "ext4", mount.MS_NOATIME, "discard")
    try:
        checkpoints(pool, place)
        write(place)
    finally:
        mount.umount(place)
    show("prepare swap", [milliseconds(lambda: pool.prepare_swap("sprite-0", "v0")) for _ in range(ROUNDS)])
    show("swap", [milliseconds(lambda: pool.swap("sprite-0")) for _ in range(ROUNDS)])
    show("retire", [milliseconds(lambda n=n: pool.retire_sprite(f"sprite-{n}")) for n in range(ROUNDS)])
    show("trim", [milliseconds(lambda: (pool.empty_trash(), pool.trim()))])


def checkpoints(pool: Pool, place: Path) -> None:
    totals, pauses, gaps, blob = [], [], [], os.urandom(64 * MIB)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for number in range(ROUNDS):
        (place / "dirty").write_bytes(blob)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, place / "writer"], stdout=subprocess.PIPE)
        time.sleep(0.25)
        target = pool.checkpoint_dir("sprite-0", f"v{number}")
        start = time.monotonic()
        pauses.append(pool.snapshot("sprite-0", target, fd))
        totals.append((time.monotonic() - start) * 1000)
        gaps.append(float(writer.communicate()[0]))
    os.close(fd)
    show("checkpoint, 64 MB dirty, a writer", totals)
    for part in ("flush_ms", "freeze_ms", "snapshot_ms"):
        show(f"  of it {part[:-3]}", [getattr(pause, part) for pause in pauses])
    show("  the writer's longest gap", gaps)


def write(place: Path) -> None:
    speeds, blob = [], memoryview(bytearray(os.urandom(MIB)) * 8)
    for _ in range(3):
        with (place / "big").open("wb", buffering=0) as file:
            spent = milliseconds(lambda: ([file.write(blob) for _ in range(128)], os.fsync(file.fileno())))
        speeds.append(1024 / spent * 1000)
        (place / "big").unlink()
    show("sequential write with fsync", speeds, "MiB/s")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as data:
        pool, place = Pool(Path(data)), Path(data) / "mount"
        place.mkdir()
        print(f"{'make and open the pool':<34} {milliseconds(pool.open):.1f} ms")
        try:
            measure(pool, place)
        finally:
            pool.close()


if __name__ == "__main__":
    main()
