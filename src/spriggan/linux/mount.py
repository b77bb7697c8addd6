"""Mounts: the classic call, and the file-descriptor calls that idmapped mounts need.

Constants keep the names of include/uapi/linux/mount.h and fcntl.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from spriggan.linux import libc

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21

MNT_DETACH = 2
MNT_EXPIRE = 4

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x00100000


def mount(source: str, target: str | Path, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises ``OSError`` naming source, target and type."""
    libc.call(
        "mount",
        source.encode(),
        os.fsencode(target),
        fstype.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
        what=f"mount {source} on {target} ({fstype or 'bind or remount'})",
    )


def umount(target: str | Path, flags: int = 0) -> None:
    """umount2(2)."""
    libc.call("umount2", os.fsencode(target), flags, what=f"umount {target}")


def bind(source: str | Path, target: str | Path, *, recursive: bool = False) -> None:
    """Show ``source`` at ``target`` as well."""
    mount(os.fspath(source), target, flags=MS_BIND | (MS_REC if recursive else 0))


def open_tree(path: str | Path, *, recursive: bool = False) -> int:
    """Return a descriptor of a detached copy of the mount at ``path``; the caller closes it."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return libc.syscall("open_tree", AT_FDCWD, os.fsencode(path), flags, what=f"open_tree {path}")


def set_attributes(mount_fd: int, *, add: int, userns: int = 0) -> None:
    """mount_setattr(2) on a detached mount; ``userns`` is the namespace of MOUNT_ATTR_IDMAP."""
    attr = struct.pack("QQQQ", add, 0, 0, userns)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    libc.syscall("mount_setattr", mount_fd, b"", AT_EMPTY_PATH, buffer, len(attr), what="mount_setattr")


def move_mount(mount_fd: int, target: str | Path) -> None:
    """Attach a detached mount at ``target``."""
    libc.syscall(
        "move_mount",
        mount_fd,
        b"",
        AT_FDCWD,
        os.fsencode(target),
        MOVE_MOUNT_F_EMPTY_PATH,
        what=f"move_mount to {target}",
    )


def is_mount_point(path: str | Path) -> bool:
    """Whether something is mounted exactly at ``path`` in this mount namespace."""
    wanted = os.path.realpath(path)
    return any(target == wanted for target in mount_points())


def mount_points(pid: int | str = "self") -> list[str]:
    """Mount points in the mount namespace of ``pid``, in the order of its mountinfo."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        return [unescape(line.split(" ", 5)[4]) for line in lines]


def unescape(field: str) -> str:
    """Turn a field of mountinfo back into the path it stands for."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
