"""btrfs by ioctl: subvolumes, and how full it is. No processes: ``btrfs`` alone takes longer to start.

Names follow include/uapi/linux/btrfs.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import libc

BTRFS_IOC_SYNC = 0x9408
BTRFS_IOC_SNAP_DESTROY = 0x5000940F
BTRFS_IOC_TREE_SEARCH = 0xD0009411
BTRFS_IOC_INO_LOOKUP = 0xD0009412
BTRFS_IOC_SPACE_INFO = 0xC0109414
BTRFS_IOC_SNAP_CREATE_V2 = 0x50009417
BTRFS_IOC_SUBVOL_CREATE_V2 = 0x50009418
BTRFS_IOC_SUBVOL_GETFLAGS = 0x80089419
BTRFS_IOC_SUBVOL_SETFLAGS = 0x4008941A
BTRFS_IOC_DEV_INFO = 0xD000941E
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602

BTRFS_SUBVOL_RDONLY = 1 << 1
BTRFS_BLOCK_GROUP_DATA = 1
BTRFS_BLOCK_GROUP_METADATA = 1 << 2
BTRFS_SPACE_INFO_GLOBAL_RSV = 1 << 49
BTRFS_FIRST_FREE_OBJECTID = 256
BTRFS_ROOT_TREE_OBJECTID = 1
BTRFS_ORPHAN_OBJECTID = 2**64 - 5
BTRFS_ORPHAN_ITEM_KEY = 48
FS_NOCOW_FL = 0x00800000
AT_FDCWD = -100
RENAME_EXCHANGE = 2

_VOL_ARGS = struct.Struct("=q4088s")
_VOL_ARGS_V2 = struct.Struct("=qQQ32s4040s")
_INO_LOOKUP = struct.Struct("=QQ4080s")
_SEARCH = struct.Struct("=7Q4I4Q3992s")
_DEV_INFO = struct.Struct("=Q16sQQ4056s")


@dataclass(frozen=True)
class Space:
    """Bytes of a btrfs file system on one device."""

    size: int
    unallocated: int  # not yet given to either data or metadata
    data_total: int
    data_used: int
    metadata_total: int
    metadata_used: int
    reserved: int  # kept by btrfs for its own emergencies

    @property
    def metadata_free(self) -> int:
        """What metadata can still grow by."""
        return max(0, self.metadata_total - self.metadata_used - self.reserved) + self.unallocated


def create_subvolume(path: Path) -> None:
    """Make an empty subvolume."""
    with _parent(path) as parent:
        args = bytearray(_VOL_ARGS_V2.pack(0, 0, 0, b"", _name(path)))
        _ioctl(parent, BTRFS_IOC_SUBVOL_CREATE_V2, args, f"create subvolume {path}")


def snapshot(source: Path, destination: Path, *, read_only: bool) -> None:
    """Snapshot subvolume ``source``; committed to the device on return."""
    flags = BTRFS_SUBVOL_RDONLY if read_only else 0
    with _directory(source) as fd, _parent(destination) as parent:
        args = bytearray(_VOL_ARGS_V2.pack(fd, 0, flags, b"", _name(destination)))
        _ioctl(parent, BTRFS_IOC_SNAP_CREATE_V2, args, f"snapshot {source} to {destination}")


def delete_subvolume(path: Path) -> None:
    """Delete a subvolume, read-only or not. Its space is freed in the background."""
    with _parent(path) as parent:
        args = bytearray(_VOL_ARGS.pack(0, _name(path)))
        _ioctl(parent, BTRFS_IOC_SNAP_DESTROY, args, f"delete subvolume {path}")


def set_read_only(path: Path, read_only: bool) -> None:
    """Seal a subvolume, or make it writable."""
    with _directory(path) as fd:
        raw = bytearray(8)
        _ioctl(fd, BTRFS_IOC_SUBVOL_GETFLAGS, raw, f"read the flags of subvolume {path}")
        flags = struct.unpack("=Q", raw)[0] & ~BTRFS_SUBVOL_RDONLY
        flags |= BTRFS_SUBVOL_RDONLY if read_only else 0
        _ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, bytearray(struct.pack("=Q", flags)), f"set the flags of {path}")


def is_subvolume(path: Path) -> bool:
    """Whether ``path`` is the root of a subvolume (on btrfs; False if it does not exist)."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False
    return info.st_ino == BTRFS_FIRST_FREE_OBJECTID


def subvolume_id(path: Path) -> int:
    """Return the id of the subvolume that ``path`` is in. It stays when the subvolume is renamed."""
    with _directory(path) as fd:
        args = bytearray(_INO_LOOKUP.pack(0, BTRFS_FIRST_FREE_OBJECTID, b""))
        _ioctl(fd, BTRFS_IOC_INO_LOOKUP, args, f"look up the subvolume of {path}")
        found: int = _INO_LOOKUP.unpack(args)[0]
        return found


def exchange(one: Path, other: Path) -> None:
    """Let two subvolumes (or anything else) swap their names, in one step that cannot be seen halfway."""
    libc.syscall(
        "renameat2",
        AT_FDCWD,
        os.fsencode(one),
        AT_FDCWD,
        os.fsencode(other),
        RENAME_EXCHANGE,
        what=f"exchange {one} and {other}",
    )


def commit(path: Path) -> None:
    """Write the file system's pending changes to the device."""
    with _directory(path) as fd:
        _ioctl(fd, BTRFS_IOC_SYNC, bytearray(0), f"commit {path}")


def set_nocow(fd: int) -> bool:
    """Mark an empty file to be overwritten in place; False where the file system has no such thing."""
    raw = bytearray(8)
    try:
        fcntl.ioctl(fd, FS_IOC_GETFLAGS, raw)
        flags = struct.unpack("=Q", raw)[0] | FS_NOCOW_FL
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, bytearray(struct.pack("=Q", flags)))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            return False
        raise
    return True


def space(path: Path) -> Space:
    """Return how full the file system is (of one device, which is all a pool has)."""
    with _directory(path) as fd:
        head = bytearray(16)
        _ioctl(fd, BTRFS_IOC_SPACE_INFO, head, f"count the space of {path}")
        slots = struct.unpack("=QQ", head)[1]
        raw = bytearray(struct.pack("=QQ", slots, 0) + bytes(24 * slots))
        _ioctl(fd, BTRFS_IOC_SPACE_INFO, raw, f"count the space of {path}")
        device = bytearray(_DEV_INFO.pack(1, b"", 0, 0, b""))
        _ioctl(fd, BTRFS_IOC_DEV_INFO, device, f"measure the device of {path}")
    count = struct.unpack("=QQ", raw[:16])[1]
    total: dict[int, int] = {}
    used: dict[int, int] = {}
    reserved = 0
    for flags, all_bytes, used_bytes in struct.iter_unpack("=QQQ", raw[16 : 16 + 24 * count]):
        if flags & BTRFS_SPACE_INFO_GLOBAL_RSV:
            reserved = all_bytes - used_bytes
            continue
        for kind in (BTRFS_BLOCK_GROUP_DATA, BTRFS_BLOCK_GROUP_METADATA):
            if flags & kind:
                total[kind] = total.get(kind, 0) + all_bytes
                used[kind] = used.get(kind, 0) + used_bytes
    _, _, allocated, size, _ = _DEV_INFO.unpack(device)
    return Space(
        size=size,
        unallocated=size - allocated,
        data_total=total.get(BTRFS_BLOCK_GROUP_DATA, 0),
        data_used=used.get(BTRFS_BLOCK_GROUP_DATA, 0),
        metadata_total=total.get(BTRFS_BLOCK_GROUP_METADATA, 0),
        metadata_used=used.get(BTRFS_BLOCK_GROUP_METADATA, 0),
        reserved=reserved,
    )


def deletions_pending(path: Path) -> bool:
    """Whether deleted subvolumes still wait for their space to be freed (in the background, or by a user)."""
    key = (BTRFS_ROOT_TREE_OBJECTID, BTRFS_ORPHAN_OBJECTID, BTRFS_ORPHAN_OBJECTID, 0, 2**64 - 1, 0, 2**64 - 1)
    types_and_count = (BTRFS_ORPHAN_ITEM_KEY, BTRFS_ORPHAN_ITEM_KEY, 1, 0)
    args = bytearray(_SEARCH.pack(*key, *types_and_count, 0, 0, 0, 0, b""))
    with _directory(path) as fd:
        _ioctl(fd, BTRFS_IOC_TREE_SEARCH, args, f"search the deleted subvolumes of {path}")
    return bool(_SEARCH.unpack(args)[9])


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _parent(path: Path) -> contextlib.AbstractContextManager[int]:
    return _directory(path.parent)


def _name(path: Path) -> bytes:
    return os.fsencode(path.name)


def _ioctl(fd: int, request: int, args: bytearray, what: str) -> None:
    try:
        fcntl.ioctl(fd, request, args)
    except OSError as error:
        raise OSError(error.errno, f"{what}: {os.strerror(error.errno or 0)}") from error
