"""The reserve: disks are thin, so the pool could meet a full host, and would then fail for everybody.

Below the reserve, what would make the pool grow is refused; below half of it, the sprites that write
must be paused (the engine does that). Bytes that were written but are not on the device yet count as
gone: they will be, also after their writers were paused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from spriggan.disk.pool import Pool
from spriggan.disk.usage import host_space
from spriggan.errors import NoSpace
from spriggan.linux import btrfs

Pressure = Literal["ok", "low", "critical"]

SMALLEST_RESERVE = 2 << 30
METADATA_RESERVE = 512 << 20
# Bytes a second, more than a sprite can write to its disk (bench/disk.py: 2.3 GiB).
FASTEST_WRITER = 4 << 30
_MOST_OFTEN, _LEAST_OFTEN = 0.2, 10.0


@dataclass(frozen=True)
class Reading:
    """One look at the space. ``free`` is the host's, less ``pending`` for what is on its way."""

    reserve: int
    free: int
    pending: int
    metadata_free: int

    @property
    def left(self) -> int:
        return self.free - self.pending

    @property
    def pressure(self) -> Pressure:
        if self.left < self.reserve // 2 or self.metadata_free < METADATA_RESERVE // 2:
            return "critical"
        if self.left < self.reserve or self.metadata_free < METADATA_RESERVE:
            return "low"
        return "ok"

    @property
    def seconds(self) -> float:
        """How long the fastest writer would at least take to half the way to ``critical``."""
        away = max(0, self.left - self.reserve // 2)
        return min(max(away / FASTEST_WRITER / 2, _MOST_OFTEN), _LEAST_OFTEN)

    def __str__(self) -> str:
        if self.metadata_free < METADATA_RESERVE:
            return (
                f"{gib(self.metadata_free)} are left for the pool's own records, "
                f"{gib(METADATA_RESERVE)} are kept in reserve"
            )
        pending = (
            f" ({gib(self.pending)} of it about to be written)"
            if self.left < self.reserve <= self.free
            else ""
        )
        return f"{gib(self.free)} are free on the host{pending}, {gib(self.reserve)} are kept in reserve"


class Reserve:
    """Guards a pool. ``reserve_bytes`` None: the larger of 5 % of the host's file system and 2 GiB."""

    def __init__(self, pool: Pool, reserve_bytes: int | None = None) -> None:
        self._pool = pool
        self._reserve_bytes = reserve_bytes

    def read(self) -> Reading:
        total, free = host_space(self._pool.image.parent)
        return Reading(
            reserve=default_reserve(total) if self._reserve_bytes is None else self._reserve_bytes,
            free=free,
            pending=pending_bytes(Path("/proc/meminfo").read_text()),
            metadata_free=btrfs.space(self._pool.root).metadata_free,
        )

    def check_growth(self, what: str) -> None:
        """Raise ``NoSpace`` if there is too little space for ``what`` ("create a sprite")."""
        reading = self.read()
        if reading.pressure != "ok":
            raise NoSpace(
                f"There is too little space to {what}: {reading}",
                hint=f"Free space on the file system of {self._pool.image.parent}, delete sprites or "
                "checkpoints that are not needed, then run `spriggan pool trim`.",
            )

    def pressure(self) -> Pressure:
        return self.read().pressure

    def next_check_seconds(self) -> float:
        """When to look again, so that no writer can get from here to a full host unseen."""
        return self.read().seconds


def default_reserve(total: int) -> int:
    """The reserve of a host's file system of ``total`` bytes."""
    return max(total // 20, SMALLEST_RESERVE)


def pending_bytes(meminfo: str) -> int:
    """Return what /proc/meminfo says is dirty or being written."""
    fields = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return sum(int(fields[name].split()[0]) for name in ("Dirty", "Writeback")) * 1024


def gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
