"""Capabilities of the calling thread."""

from __future__ import annotations

import ctypes

from spriggan.linux import libc

_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def raise_permitted() -> None:
    """Make every permitted capability effective again, as setfsuid(2) takes some away."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    libc.call("capget", ctypes.byref(header), ctypes.byref(data), what="capget")
    for half in data:
        half.effective = half.permitted
    libc.call("capset", ctypes.byref(header), ctypes.byref(data), what="capset")
