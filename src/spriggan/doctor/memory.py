"""Memory of the machine."""

from __future__ import annotations

from pathlib import Path

from spriggan.disk.guard import gib
from spriggan.doctor.check import Place
from spriggan.doctor.finding import Finding, limited

_LITTLE = 1 << 30  # a compiler in one sprite takes that much


def memory(place: Place) -> Finding | str:
    """How much is available, and swap."""
    sizes = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    swap = f"{gib(sizes['SwapTotal'])} of swap" if sizes["SwapTotal"] else "no swap"
    seen = f"{gib(sizes['MemAvailable'])} available of {gib(sizes['MemTotal'])}, {swap}"
    if sizes["MemAvailable"] < _LITTLE:
        return limited(
            seen,
            costs="sprites compete for it, and the kernel kills what is largest in them",
            fix="stop other programs; or add swap: fallocate -l 4G /swap && chmod 600 /swap && mkswap /swap && swapon /swap",
        )
    return seen
