"""Loop devices: a file as a block device.

Devices are attached with autoclear: the kernel detaches one when its last user (a mount or an open
descriptor) is gone, so nothing is left behind, however a process ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import mount

LOOP_CLR_FD = 0x4C01
LOOP_GET_STATUS64 = 0x4C05
LOOP_CONFIGURE = 0x4C0A
LOOP_CTL_GET_FREE = 0x4C82

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16

LOOP_MAJOR = 7

# struct loop_info64, and struct loop_config around it (include/uapi/linux/loop.h).
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")
_CONFIG_SIZE = 304

_ATTEMPTS = 64  # another process may take the free device first, each time
_GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)


@dataclass(frozen=True)
class LoopDevice:
    """An attached loop device. ``backing`` names the file for any path that leads to it."""

    path: str
    backing: tuple[int, int]  # device and inode number
    read_only: bool
    direct_io: bool


@contextmanager
def attach(
    image: str | Path, *, read_only: bool = False, direct_io: bool = True, hidden: bool = False
) -> Iterator[str]:
    """Yield the path of a loop device that shows ``image``; mount it within the block.

    What is not in use by the end of the block is detached. Direct I/O keeps the data from being
    cached twice; the kernel leaves it off where the file system below cannot do it. ``hidden``: in
    /sys/block, which sprites can read, only the name of the file shows and no directory.
    """
    flags = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
    backing = _open_hidden(Path(image), flags) if hidden else os.open(image, flags)
    try:
        device, path = _configure(backing, read_only=read_only, direct_io=direct_io)
    except OSError as error:
        what = f"attach {image} to a loop device: {error.strerror}"
        raise OSError(error.errno, what, error.filename) from error
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def find(image: str | Path) -> list[str]:
    """Return the loop devices that show ``image``, however their path to it was spelled."""
    try:
        wanted = backing_id(image)
    except FileNotFoundError:
        return []
    return [device.path for device in attached() if device.backing == wanted]


def backing_id(image: str | Path) -> tuple[int, int]:
    """Return what ``LoopDevice.backing`` is for ``image``."""
    info = Path(image).stat()
    return info.st_dev, info.st_ino


def attached() -> list[LoopDevice]:
    """Return all attached loop devices of this host."""
    # /sys/block/loopN/loop exists exactly while loopN is attached.
    numbers = sorted(int(entry.parent.name[4:]) for entry in Path("/sys/block").glob("loop*/loop"))
    return [device for device in map(_status, numbers) if device is not None]


def detach(path: str | Path) -> None:
    """Detach a loop device: at once if nobody uses it, else when its last user is gone.

    Fine if it is not attached or does not exist.
    """
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return
        raise
    try:
        fcntl.ioctl(device, LOOP_CLR_FD, 0)
    except OSError as error:
        if error.errno not in _GONE:
            raise
    finally:
        os.close(device)


def _open_hidden(image: Path, flags: int) -> int:
    """Open ``image`` in a detached copy of the mount that it lies on."""
    image = image.resolve()
    tree = mount.open_tree(image.parent)
    try:
        return os.open(image.name, flags, dir_fd=tree)
    finally:
        os.close(tree)


def _configure(backing: int, *, read_only: bool, direct_io: bool) -> tuple[int, str]:
    """Return a free device that was bound to ``backing``, open, and its path."""
    config = bytearray(_configuration(backing, read_only=read_only, direct_io=direct_io))
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_ATTEMPTS):
            path = _node(fcntl.ioctl(control, LOOP_CTL_GET_FREE, 0))
            try:
                device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                continue
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno not in (errno.EBUSY, errno.EAGAIN):
                    raise
                time.sleep(0.001 * attempt)  # another process took it first
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "other processes took every free loop device first")


def _configuration(backing: int, *, read_only: bool, direct_io: bool) -> bytes:
    """Return a struct loop_config."""
    flags = LO_FLAGS_AUTOCLEAR
    flags |= LO_FLAGS_READ_ONLY if read_only else 0
    flags |= LO_FLAGS_DIRECT_IO if direct_io else 0
    # Direct I/O must be aligned to the blocks of the file system below; 4096 suits all that matter.
    block_size = 4096 if os.fstat(backing).st_size % 4096 == 0 else 0
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, b"", b"", b"", 0, 0)
    return (struct.pack("=II", backing, block_size) + info).ljust(_CONFIG_SIZE, b"\0")


def _node(number: int) -> str:
    """Return the path of a device's node, made where /dev is not the kernel's own (as in containers)."""
    path = f"/dev/loop{number}"
    if not Path(path).exists():
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(LOOP_MAJOR, number))
    return path


def _status(number: int) -> LoopDevice | None:
    """Return what a device shows; None if it is not attached (any more)."""
    path = _node(number)
    raw = bytearray(_INFO.size)
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, LOOP_GET_STATUS64, raw)
        finally:
            os.close(device)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    fields = _INFO.unpack(raw)
    flags = fields[8]
    return LoopDevice(
        path=path,
        backing=(fields[0], fields[1]),
        read_only=bool(flags & LO_FLAGS_READ_ONLY),
        direct_io=bool(flags & LO_FLAGS_DIRECT_IO),
    )
