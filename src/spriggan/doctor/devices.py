"""Devices that sprites get if the host has them."""

from __future__ import annotations

import fcntl
import os
import struct

from spriggan.doctor.check import Place
from spriggan.doctor.finding import Finding
from spriggan.linux import namespaces
from spriggan.linux.mount import mount, umount

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


def fuse(place: Place) -> Finding | str:
    """A FUSE file system, mounted (nobody serves it)."""
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount("doctor", place.scratch, "fuse", 0, f"fd={fd},rootmode=40000,user_id=0,group_id=0")
        umount(place.scratch)
    finally:
        os.close(fd)
    return "a file system was mounted"


def tun(place: Place) -> Finding | str:
    """A TAP interface, in a network namespace of its own."""
    namespaces.in_new_network(_make_tap)
    return "an interface was made"


def _make_tap() -> None:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"doctor0", _IFF_TAP | _IFF_NO_PI))
    finally:
        os.close(fd)
