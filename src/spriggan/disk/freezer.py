"""Freeze a file system, snapshot the subvolume its image lies in, thaw: a script of its own.

A freeze outlives the process that made it and then hangs every writer, so this must not depend on
the server: it runs in a session of its own, by ``python -I -S`` from this one file, writes nothing
to a disk, and a second process thaws after two seconds or as soon as the first one is gone. It is
dependency-free (but for the points of tests, which are so, too) for that reason, which is the excuse
for repeating a few constants of ``spriggan.linux``.

    freezer.py MOUNT_FD SOURCE_FD PARENT_FD NAME READ_ONLY

prints one JSON object: milliseconds, and whether the file system stayed frozen all along; or an error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections.abc import Callable

if __name__ == "__main__":  # run by its path, without site packages: where this package is
    sys.path.append(__file__.rpartition("/spriggan/")[0])
from spriggan import faults

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
BTRFS_IOC_SYNC = 0x9408
BTRFS_IOC_SNAP_CREATE_V2 = 0x50009417
BTRFS_SUBVOL_RDONLY = 1 << 1

LONGEST_FREEZE = 2.0
_RETRY = 0.05


def main(arguments: list[str]) -> None:
    mount, source, parent = (int(argument) for argument in arguments[:3])
    name, read_only = arguments[3], arguments[4] == "1"
    try:
        result = frozen_snapshot(mount, source, parent, name, read_only=read_only)
    except OSError as error:
        result = {"errno": error.errno or 0, "error": os.strerror(error.errno or 0)}
    print(json.dumps(result), flush=True)


def frozen_snapshot(
    mount: int, source: int, parent: int, name: str, *, read_only: bool
) -> dict[str, float | bool | str | int]:
    """Do it, and say how long each part took."""
    start = time.monotonic()
    # What is written before the freeze does not have to be written during it. The commit of the pool
    # counts more than the flush: the snapshot commits, and would wait for all that is pending.
    _syncfs(mount)
    fcntl.ioctl(source, BTRFS_IOC_SYNC)
    flushed = time.monotonic()
    release = start_watchdog(mount)
    faults.point("freezer:flushed")
    try:
        fcntl.ioctl(mount, FIFREEZE, 0)
        frozen = time.monotonic()
        faults.point("freezer:frozen")
        try:
            _snapshot(source, parent, name, read_only=read_only)
            faults.point("freezer:snapshot")
        finally:
            done = time.monotonic()
            held = thaw(mount)
        faults.point("freezer:thawed")
    finally:
        release()
    return {
        "flush_ms": (flushed - start) * 1000,
        "freeze_ms": (frozen - flushed) * 1000,
        "snapshot_ms": (done - frozen) * 1000,
        "held": held,
    }


def start_watchdog(mount: int) -> Callable[[], None]:
    """Start the process that thaws ``mount`` if this one does not; return what ends it, to be called once."""
    waiting, alive = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            os.close(alive)
            _watch(mount, waiting)
        finally:
            os._exit(0)
    os.close(waiting)

    def release() -> None:
        os.write(alive, b".")
        os.close(alive)
        os.wait()

    return release


def thaw(mount: int) -> bool:
    """Thaw; False if the file system was not frozen (any more)."""
    try:
        fcntl.ioctl(mount, FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def _watch(mount: int, waiting: int) -> None:
    patience = LONGEST_FREEZE
    while not select.select([waiting], [], [], patience)[0]:
        # A freeze that is still being made cannot be thawed yet: keep trying until the other ends.
        thaw(mount)
        patience = _RETRY
    if not os.read(waiting, 1):
        thaw(mount)


def _snapshot(source: int, parent: int, name: str, *, read_only: bool) -> None:
    flags = BTRFS_SUBVOL_RDONLY if read_only else 0
    args = struct.pack("=qQQ32s4040s", source, 0, flags, b"", os.fsencode(name))
    fcntl.ioctl(parent, BTRFS_IOC_SNAP_CREATE_V2, bytearray(args))


def _syncfs(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) < 0:
        raise OSError(ctypes.get_errno(), "syncfs")


if __name__ == "__main__":
    main(sys.argv[1:])
