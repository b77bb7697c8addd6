"""The output of a session, kept on the host's disk so that it can be replayed.

Records are appended to one file and named by their offset, which only grows. Of more than
``limit`` bytes the oldest are given back to the file system by punching a hole, up to a mark
where a record begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spriggan.linux import libc

LIMIT = 16 << 20
MARK_EVERY = 256 << 10
READ_BYTES = 256 << 10

_HEADER = struct.Struct("<BI")  # stream, length of the payload
_PUNCH_HOLE_KEEP_SIZE = 3


@dataclass(frozen=True)
class Batch:
    """Records from one place on: ``(stream, payload)``, where to go on, and how much was missing."""

    records: list[tuple[int, bytes]]
    end: int
    lost: int


class Spool:
    """One session's output. ``start`` and ``end`` are offsets; what lies before ``start`` is gone."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._fd = -1
        self._marks: deque[int] = deque()
        self.start = 0
        self.end = 0

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self.end - self.start

    def open(self) -> None:
        """Create the file. Raises ``OSError``."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)

    def leave(self) -> dict[str, Any]:
        """What ``found`` has to know."""
        return {"name": self._path.name, "start": self.start, "end": self.end, "marks": list(self._marks)}

    @classmethod
    def found(cls, directory: Path, left: dict[str, Any]) -> Spool:
        """The spool of an earlier pilot, to be read. Raises ``OSError``."""
        spool = cls(directory / left["name"])
        spool.start, spool.end = left["start"], left["end"]
        spool._marks.extend(left["marks"])
        spool._fd = os.open(spool._path, os.O_RDWR | os.O_CLOEXEC)
        return spool

    def close(self) -> None:
        """Remove the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._path.unlink(missing_ok=True)

    def append(self, stream: int, payload: bytes) -> None:
        """Add a record; drop the oldest if there is too much now. Raises ``OSError``; then nothing was added."""
        if not self._marks or self.end - self._marks[-1] >= MARK_EVERY:
            self._marks.append(self.end)
        record = _HEADER.pack(stream, len(payload)) + payload
        view = memoryview(record)
        while view:
            view = view[os.pwrite(self._fd, view, self.end + len(record) - len(view)) :]
        self.end += len(record)
        if self.size > self._limit:
            self._drop()

    def read(self, offset: int) -> Batch:
        """Records from ``offset`` on, some hundred kilobytes at most."""
        lost = max(0, self.start - offset)
        position = offset + lost
        data = os.pread(self._fd, min(READ_BYTES, self.end - position), position)
        records = []
        at = 0
        while at + _HEADER.size <= len(data):
            stream, length = _HEADER.unpack_from(data, at)
            payload = data[at + _HEADER.size : at + _HEADER.size + length]
            if len(payload) < length:
                break
            records.append((stream, payload))
            at += _HEADER.size + length
        return Batch(records, position + at, lost)

    def _drop(self) -> None:
        while len(self._marks) > 1 and self.end - self._marks[0] > self._limit:
            self._marks.popleft()
        before, self.start = self.start, self._marks[0]
        if self.start > before:
            # Without support for holes the file only grows more than it needs to.
            with contextlib.suppress(OSError):
                libc.call(
                    "fallocate",
                    self._fd,
                    _PUNCH_HOLE_KEEP_SIZE,
                    ctypes.c_long(before),
                    ctypes.c_long(self.start - before),
                    what="punch a hole",
                )
