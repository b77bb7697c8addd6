"""Steps on disks, without server and sprites.

Against one ``fsync`` of 64 MiB on the host, as the cost of a disk that does nothing else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import peers
from bench.figures import Row
from bench.peers import timed
from bench.setting import Setting
from spriggan.disk import Pool
from spriggan.linux import loop, mount, namespaces

DIRTY = 64 << 20


def measure(setting: Setting) -> list[Row]:
    return namespaces.in_thread(lambda: _by_itself(setting))


def _by_itself(setting: Setting) -> list[Row]:
    # A pilot that another server starts meanwhile would copy these mounts, and keep the pool in use. The pool is
    # not closed: with the thread its mounts are gone, and its files with the setting.
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.mount("none", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
    data = Path(tempfile.mkdtemp(dir=setting.directory))
    pool, place = Pool(data), data / "mount"
    place.mkdir()
    pool.open()
    pool.create_disk("warm-up", 20)
    created = _each(setting, lambda number: pool.create_disk(f"sprite-{number}", 20))
    snapshots, fsyncs = _snapshots(setting, pool, place)
    prepared = _each(setting, lambda _: pool.prepare_swap("sprite-0", "v0"))
    swapped = _each(setting, lambda _: pool.swap("sprite-0"))
    retired = _each(setting, lambda number: pool.retire_sprite(f"sprite-{number}"))
    floor = Row("one fsync of 64 MiB on the host", fsyncs)
    return [
        floor,
        Row("create a disk", created, against=floor),
        Row("snapshot a disk, 64 MiB dirty", snapshots, against=floor),
        Row("prepare a swap", prepared, against=floor),
        Row("swap two disks", swapped, against=floor),
        Row("retire a disk", retired, against=floor),
    ]


def _each(setting: Setting, work: Callable[[int], object]) -> list[float]:
    return [timed(lambda: work(number)) for number in range(setting.rounds)]


def _snapshots(setting: Setting, pool: Pool, place: Path) -> tuple[list[float], list[float]]:
    snapshots, fsyncs, data = [], [], os.urandom(DIRTY)
    with loop.attach(pool.disk_path("sprite-0")) as device:
        mount.mount(device, place, "ext4", mount.MS_NOATIME, "discard")
    try:
        for number in range(setting.rounds):
            fsyncs.append(peers.fsync(setting.directory, DIRTY))
            (place / "dirty").write_bytes(data)
            target = pool.checkpoint_dir("sprite-0", f"v{number}")
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                snapshots.append(timed(lambda: pool.snapshot("sprite-0", target, fd)))
            finally:
                os.close(fd)
    finally:
        mount.umount(place)
    return snapshots, fsyncs
