"""Open a file inside a tree that somebody else controls, without being led out of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from spriggan.linux import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
AT_EACCESS = 0x200
AT_EMPTY_PATH = 0x1000


def open_in_root(root: str | Path, path: str, flags: int) -> int:
    """Open ``path`` as a process chrooted to ``root`` would (openat2, RESOLVE_IN_ROOT).

    Symlinks, ``..`` and absolute paths stay below ``root``. Never blocks on a FIFO.
    """
    with _opened(root) as root_fd:
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        return _openat2(root_fd, os.fsencode(path), _unblocked(flags), resolve, what=f"open {path} in {root}")


def open_beneath(root: str | Path, path: str, flags: int, mode: int = 0o600) -> int:
    """Open ``path``, relative to ``root``, following no symlink and staying on its file system.

    Never blocks on a FIFO; the caller checks what kind of file it got.
    """
    with _opened(root) as root_fd:
        return open_strictly(root_fd, os.fsencode(path), _unblocked(flags), mode)


def may_write(fd: int) -> bool:
    """Whether the caller, by its effective ids, may write the file that ``fd`` (also O_PATH) refers to."""
    with contextlib.suppress(OSError):
        flags = AT_EACCESS | AT_EMPTY_PATH
        return libc.syscall("faccessat2", fd, b"", os.W_OK, flags, what="faccessat2") == 0
    return False


def open_strictly(directory: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open ``path`` below ``directory``, where no part of it may be a link or lead anywhere else.

    Raises ``OSError``: ELOOP for a link, EXDEV for what leads out or to another file system.
    """
    resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
    mode = mode if flags & os.O_CREAT else 0  # which openat2 refuses where nothing is made
    return _openat2(directory, path, flags, resolve, mode=mode, what=f"open {path!r}")


def read_in_root(root: str | Path, path: str, limit: int = 1 << 20) -> str:
    """Read a regular text file of at most ``limit`` bytes; what lies beyond is ignored.

    Raises ``FileNotFoundError`` also for what is not a regular file.
    """
    fd = open_in_root(root, path, os.O_RDONLY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileNotFoundError(f"{path} is not a regular file")
        return os.read(fd, limit).decode(errors="replace")
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(root: str | Path) -> Iterator[int]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _unblocked(flags: int) -> int:
    # O_PATH reaches for nothing, and refuses other flags.
    return flags if flags & os.O_PATH else flags | os.O_NONBLOCK


def _openat2(directory: int, path: bytes, flags: int, resolve: int, *, mode: int = 0, what: str) -> int:
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    buffer = ctypes.create_string_buffer(how, len(how))
    return libc.syscall("openat2", directory, path, buffer, len(how), what=what)
