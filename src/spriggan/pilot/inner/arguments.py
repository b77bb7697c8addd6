"""System calls that a sprite may make with some arguments only, for reasons that no profile knows of.

seccomp compares whole registers of 64 bits, of which the kernel looks at the lower half for an
``int``. Whatever is refused by equality could be said with a bit set above. So here the values that
are allowed are named one by one, and what is not named fails by default.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

# 32-bit programs can ask for any socket through this one call, whose arguments lie in memory. Refused
# whatever they are, and first: of the rules for sockets libseccomp makes others for this call.
_UNSEEN = "socketcall"

# AF_VSOCK knows no namespaces: it leads to what listens on the host and to the hypervisor below it.
# The other families that are left out are nothing that sprites need and seldom looked at by anybody.
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17}
_FAMILY_COUNT = 64

# Memory for these rings is charged to nobody: a sprite of 256 MiB could take all of the host's.
_SOL_PACKET = 263
_PACKET_RINGS = (5, 13)  # PACKET_RX_RING, PACKET_TX_RING
_PACKET_OPTIONS = 32
_LAST_LEVEL = 300

# Where the host pipes core dumps to a program of its own (systemd-coredump, apport), the kernel runs
# that as root, outside of every wall, for any process that crashes, whatever its limit for core
# files is. Only the limit 1 stops it (fs/coredump.c). A sprite's processes have that and keep it:
# to change it seems to succeed, because sudo and others complain loudly when it does not.
_RLIMIT_CORE = 4
_RLIMITS = 16
CORE_LIMIT = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}

NAMES = {_UNSEEN, "socket", "setsockopt", "setrlimit", "prlimit64"}


def rules() -> list[dict[str, Any]]:
    """The rules for ``NAMES``, as in ``linux.seccomp.syscalls``."""
    return [_refuse(_UNSEEN, errno.EAFNOSUPPORT), *_socket(), *_setsockopt(), *_limits()]


def _socket() -> Iterable[dict[str, Any]]:
    for family in range(_FAMILY_COUNT):
        if family in FAMILIES.values():
            yield _allow("socket", _equal(0, family))
        else:
            yield _refuse("socket", errno.EAFNOSUPPORT, _equal(0, family))


def _setsockopt() -> Iterable[dict[str, Any]]:
    yield _allow("setsockopt", {"index": 1, "value": _SOL_PACKET, "op": "SCMP_CMP_LT"})
    for level in range(_SOL_PACKET + 1, _LAST_LEVEL):
        yield _allow("setsockopt", _equal(1, level))
    for option in range(_PACKET_OPTIONS):
        place = (_equal(1, _SOL_PACKET), _equal(2, option))
        if option in _PACKET_RINGS:
            yield _refuse("setsockopt", errno.EPERM, *place)
        else:
            yield _allow("setsockopt", *place)


def _limits() -> Iterable[dict[str, Any]]:
    for limit in range(_RLIMITS):
        if limit != _RLIMIT_CORE:
            yield _allow("setrlimit", _equal(0, limit))
            yield _allow("prlimit64", _equal(1, limit))
    yield _refuse("setrlimit", 0, _equal(0, _RLIMIT_CORE))
    asked = {"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}  # no new limit is given
    yield _allow("prlimit64", _equal(1, _RLIMIT_CORE), asked)
    yield _refuse("prlimit64", 0, _equal(1, _RLIMIT_CORE), {**asked, "op": "SCMP_CMP_NE"})


def _allow(name: str, *args: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": list(args)}


def _refuse(name: str, code: int, *args: dict[str, Any]) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": code, "args": list(args)}


def _equal(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}
