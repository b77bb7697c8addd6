"""Capabilities of the calling thread."""

from __future__ import annotations

import ctypes

from spriggan.linux import libc

PR_SET_KEEPCAPS = 8
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep() -> None:
    """Let a change of all ids from root leave the permitted capabilities; only until the next exec."""
    libc.call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0, what="prctl(PR_SET_KEEPCAPS)")


def raise_permitted() -> None:
    """Make every permitted capability effective again, as changes of ids take them away."""
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    libc.call("capget", ctypes.byref(header), ctypes.byref(data), what="capget")
    for half in data:
        half.effective = half.permitted
    libc.call("capset", ctypes.byref(header), ctypes.byref(data), what="capset")
