"""The C library, and system calls that it has no function for.

Every wrapper raises ``OSError`` whose message names what was tried, so that
an error far up the stack still tells which call failed on what.
"""

from __future__ import annotations

import ctypes
import os
import platform

_LIBC = ctypes.CDLL(None, use_errno=True)

# Numbers above 423 are the same on every architecture (include/uapi/asm-generic/unistd.h);
# the older ones differ and are listed for the two architectures that run Spriggan.
_OLDER = {
    "x86_64": {"pivot_root": 155, "renameat2": 316, "setns": 308, "unshare": 272},
    "aarch64": {"pivot_root": 41, "renameat2": 276, "setns": 268, "unshare": 97},
}
_COMMON = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "close_range": 436,
    "pidfd_getfd": 438,
    "openat2": 437,
    "faccessat2": 439,
    "mount_setattr": 442,
    "fchmodat2": 452,
}


def syscall(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None, what: str) -> int:
    """Make system call ``name``; raise ``OSError`` with ``what`` if it fails."""
    number = _COMMON.get(name)
    if number is None:
        number = _OLDER[platform.machine()][name]
    converted: list[object] = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result: int = _LIBC.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        fail(what)
    return result


def call(name: str, *args: object, what: str) -> int:
    """Call the C library's function ``name``; raise ``OSError`` with ``what`` if it returns < 0."""
    result: int = getattr(_LIBC, name)(*args)
    if result < 0:
        fail(what)
    return result


def fail(what: str) -> None:
    """Raise the ``OSError`` of the last failed call."""
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
