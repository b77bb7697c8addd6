"""What a disk holds after a power cut: replay of the log that QEMU's ``blklogwrites`` keeps.

The format is that of Linux's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst):
a superblock, then for every write one sector that describes it and its data, in the order of their
completion; a flush is an entry of its own. Killing QEMU loses nothing of what the guest wrote, as the
host's kernel has it; the log says what a disk with a volatile cache could have lost.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MAGIC = 0x6A736677736872
SECTOR = 512
SUPER = struct.Struct("<QQQI")
ENTRY = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Entry:
    """One entry; ``data`` is where its bytes begin in the log file."""

    sector: int
    sectors: int
    flags: int
    data: int

    @property
    def is_flush(self) -> bool:
        return bool(self.flags & _FLUSH)

    @property
    def is_durable(self) -> bool:
        return bool(self.flags & _FUA)

    @property
    def is_write(self) -> bool:
        return self.sectors > 0 and not self.flags & _DISCARD


def flushed(log: Path) -> int:
    """How many entries there were when the last flush was over; 0 before the first.

    What the guest knows to be durable is durable with that many.
    """
    with log.open("rb") as file:
        data = file.read(SUPER.size)
    if len(data) < SUPER.size:
        return 0
    magic, version, count, sector = SUPER.unpack(data)
    if (magic, version, sector) != (MAGIC, 1, SECTOR):
        raise ValueError(f"{log} is no write log of {SECTOR}-byte sectors")
    return int(count)


def entries(log: Path) -> list[Entry]:
    """All entries that are complete: a killed QEMU may leave the last ones half written."""
    return list(_read(log))


def cut(entries: list[Entry], at: int, *, complete: int = 0) -> tuple[list[Entry], list[Entry]]:
    """Split the first ``at`` entries into what is on the disk for sure and what only may be.

    ``complete`` entries were there when a flush was over (``flushed``). If that is more than there are to
    read, a flush's own entry is among the unreadable ones.
    """
    seen = entries[:at]
    if complete > len(entries) and at >= len(entries):
        return seen, []
    last = max((n for n, entry in enumerate(seen) if entry.is_flush), default=-1)
    return seen[: last + 1], seen[last + 1 :]


def replay(log: Path, target: Path, sure: list[Entry], maybe: list[Entry], chance: random.Random) -> None:
    """Bring ``target``, the disk as it was before the log began, to a state a power cut could leave.

    Of what was not flushed, each write got to the disk, or did not, or only some of its sectors: a disk
    may write its cache in any order, a sector at a time.
    """
    with log.open("rb") as source, target.open("r+b") as disk:
        for entry in sure:
            if entry.is_write:
                _write(source, disk, entry, range(entry.sectors))
        for entry in maybe:
            if not entry.is_write:
                continue
            fate = "whole" if entry.is_durable else chance.choice(("whole", "lost", "torn"))
            if fate == "whole":
                _write(source, disk, entry, range(entry.sectors))
            elif fate == "torn":
                _write(source, disk, entry, [n for n in range(entry.sectors) if chance.random() < 0.5])


def _write(source: BinaryIO, disk: BinaryIO, entry: Entry, sectors: range | list[int]) -> None:
    data = os.pread(source.fileno(), entry.sectors * SECTOR, entry.data)
    if isinstance(sectors, range):
        os.pwrite(disk.fileno(), data, entry.sector * SECTOR)
        return
    for number in sectors:
        part = data[number * SECTOR : (number + 1) * SECTOR]
        os.pwrite(disk.fileno(), part, (entry.sector + number) * SECTOR)


def _read(log: Path) -> Iterator[Entry]:
    size = log.stat().st_size
    with log.open("rb") as file:
        at = SECTOR
        while at + SECTOR <= size:
            sector, sectors, flags, _ = ENTRY.unpack(os.pread(file.fileno(), ENTRY.size, at))
            if not flags and not sectors:
                return  # a hole: this entry was under way when QEMU was killed
            data = at + SECTOR
            at = data if flags & _DISCARD else data + sectors * SECTOR
            if at > size:
                return
            yield Entry(sector, sectors, flags, data)
