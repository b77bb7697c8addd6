"""The output of one session, kept in a file of bounded size on the host's side.

The file is a ring of records, each a header (stream, length) and its bytes. Positions count
all bytes ever written, so they only grow; a position modulo the capacity is an offset in the
file. When a record does not fit any more, the oldest ones are dropped. Every reader has its
own position and speed, and is told how much it missed.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from spriggan.wire.frames import MAX_PAYLOAD

CAPACITY = 16 << 20
WINDOW = 128 << 10  # what a reader takes into memory at once; more than any record

_HEADER = struct.Struct("!BI")


@dataclass(frozen=True)
class Chunk:
    """Bytes of one stream, in the order they came."""

    stream: int
    data: bytes


@dataclass(frozen=True)
class Lost:
    """So many bytes were dropped before the reader came to them."""

    count: int


class Spool:
    """A session's output. The file is made with the first byte and removed by ``close``."""

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        self.path = path
        self.capacity = capacity
        self.start = 0  # position of the oldest record that is still there
        self.end = 0  # position after the newest
        self.dropped = 0  # bytes of output before ``start``
        self._fd = -1

    def append(self, stream: int, data: bytes) -> None:
        """Add at most ``MAX_PAYLOAD`` bytes of output. Raises ``OSError``; then nothing was added."""
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        size = _HEADER.size + len(data)
        while self.end + size - self.start > self.capacity:
            self._drop_oldest()
        self._write(self.end, _HEADER.pack(stream, len(data)) + data)
        self.end += size

    def read(self, position: int) -> tuple[list[Chunk], int]:
        """Return what lies at ``position`` (at most ``WINDOW`` bytes), and the position after it."""
        chunks: list[Chunk] = []
        raw = self._read(position, min(WINDOW, self.end - position))
        offset = 0
        while offset + _HEADER.size <= len(raw):
            stream, length = _HEADER.unpack_from(raw, offset)
            body = offset + _HEADER.size
            if body + length > len(raw):
                break
            _join(chunks, Chunk(stream, raw[body : body + length]))
            offset = body + length
        return chunks, position + offset

    def close(self) -> None:
        """Remove the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.path.unlink(missing_ok=True)

    def _drop_oldest(self) -> None:
        _, length = _HEADER.unpack(self._read(self.start, _HEADER.size))
        self.start += _HEADER.size + length
        self.dropped += length

    def _read(self, position: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            offset = position % self.capacity
            part = os.pread(self._fd, min(size, self.capacity - offset), offset)
            if not part:
                raise OSError(f"{self.path} is shorter than what was written to it")
            parts.append(part)
            position += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _write(self, position: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            offset = position % self.capacity
            written = os.pwrite(self._fd, rest[: self.capacity - offset], offset)
            position += written
            rest = rest[written:]


class Reader:
    """One reader's way through a spool."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self.position = spool.start
        self._passed = spool.dropped  # bytes of output before ``position``
        self._missed = spool.dropped  # of these, what this reader has yet to be told it missed

    @property
    def at_end(self) -> bool:
        return self.position == self._spool.end and not self._missed

    def take(self) -> list[Chunk] | Lost | None:
        """The next output, or how much was lost here, or None when there is no more now."""
        spool = self._spool
        if self.position < spool.start:
            self._missed += spool.dropped - self._passed
            self.position, self._passed = spool.start, spool.dropped
        if self._missed:
            lost, self._missed = Lost(self._missed), 0
            return lost
        if self.position == spool.end:
            return None
        chunks, self.position = spool.read(self.position)
        self._passed += sum(len(chunk.data) for chunk in chunks)
        return chunks


def _join(chunks: list[Chunk], new: Chunk) -> None:
    """Add ``new``, to the chunk before it if that is of the same stream and stays one frame."""
    last = chunks[-1] if chunks else None
    if last and last.stream == new.stream and len(last.data) + len(new.data) <= MAX_PAYLOAD:
        chunks[-1] = Chunk(new.stream, last.data + new.data)
    else:
        chunks.append(new)
