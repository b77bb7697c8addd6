"""A mounted file system as a whole: freeze and thaw it, flush it, trim it.

All take a descriptor of anything inside the file system. It may belong to a bind or
idmapped mount of it; an overlay on top refuses.
"""

from __future__ import annotations

import errno
import fcntl
import struct

from spriggan.linux import libc

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
FITRIM = 0xC0185879

_EVERYTHING = 0xFFFFFFFFFFFFFFFF


def freeze(fd: int) -> None:
    """Write everything out and block all further writers until ``thaw``; EBUSY if frozen already."""
    fcntl.ioctl(fd, FIFREEZE, 0)


def thaw(fd: int) -> bool:
    """Let writers go on; False if the file system was not frozen."""
    try:
        fcntl.ioctl(fd, FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def syncfs(fd: int) -> None:
    """Write everything out, without blocking anybody."""
    libc.call("syncfs", fd, what="syncfs")


def trim(fd: int, minimum: int = 0) -> int:
    """Tell the device below which bytes are free; return how many were (pieces of ``minimum`` and more).

    The figure counts what was free, not what was freed: most of it may have been a hole before.
    """
    span = bytearray(struct.pack("=QQQ", 0, _EVERYTHING, minimum))
    fcntl.ioctl(fd, FITRIM, span)
    trimmed: int = struct.unpack("=QQQ", span)[1]
    return trimmed
