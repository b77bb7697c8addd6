"""A mounted file system as a whole: flush it, trim it.

All take a descriptor of anything inside the file system. It may belong to a bind or
idmapped mount of it; an overlay on top refuses to be trimmed.
"""

from __future__ import annotations

import fcntl
import struct

from spriggan.linux import libc

FITRIM = 0xC0185879

_EVERYTHING = 0xFFFFFFFFFFFFFFFF


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
