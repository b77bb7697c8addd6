"""Whether this process is the machine's root."""

from __future__ import annotations

import os
from pathlib import Path

from spriggan.doctor.check import Place
from spriggan.doctor.finding import Finding, missing

# Numbers of include/uapi/linux/capability.h, for what a server does.
NEEDED = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_ADMIN": 12,
    "SYS_CHROOT": 18,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "MKNOD": 27,
    "SETFCAP": 31,
}
_ALL_IDS = 2**32 - 1


def is_privileged() -> bool:
    """Whether this process may try what a server does."""
    return os.geteuid() == 0 and _outside() == (0, _ALL_IDS) and not lacking(_status())


def lacking(status: str) -> list[str]:
    """The needed capabilities that the text of a /proc/<pid>/status does not show as effective."""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    effective = int(fields["CapEff"], 16)
    return [name for name, number in NEEDED.items() if not effective >> number & 1]


def root(place: Place) -> Finding | str:
    """Root of the whole machine, with its capabilities: not of a user namespace, nor of a container."""
    if os.geteuid() != 0:
        return missing(
            f"this runs as uid {os.geteuid()}, and sprites need root",
            costs="nothing can be served, and most of what follows cannot be tried",
            fix="run it with sudo",
        )
    if _outside() != (0, _ALL_IDS):
        return missing(
            f"this is the root of a user namespace (uid {_outside()[0]} outside), not of the machine",
            costs="disks cannot be mounted, and sprites get no ids of their own",
            fix="run it outside of the container or namespace, as the machine's root",
        )
    if names := lacking(_status()):
        return missing(
            f"root lacks the capabilities {', '.join(names)}",
            costs="mounts, namespaces or networks of sprites cannot be made",
            fix="run it on the machine itself; in Docker, with --privileged",
        )
    return "uid 0, with all capabilities that are needed"


def _status() -> str:
    return Path("/proc/self/status").read_text()


def _outside() -> tuple[int, int]:
    """Who uid 0 of this namespace is outside of it, and how many ids there are."""
    _, outside, count = map(int, Path("/proc/self/uid_map").read_text().split()[:3])
    return outside, count
