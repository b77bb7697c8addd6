"""Bytes from a file or a part of one: counted, hashed, and decompressed as far as a limit allows."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import zstandard

from spriggan.errors import InvalidValue
from spriggan.image.importing.limits import Budget

CHUNK = 1 << 20
_READ_AHEAD = 64 << 10  # what counts as read although it may be used later
# What a decompressor may take. `xz -9` needs 65 MiB, `zstd --long=27` 128 MiB.
_XZ_MEMORY = 512 << 20
_ZSTD_WINDOW = 1 << 27

_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class Reading(Protocol):
    """What can be read from its beginning."""

    def read(self, count: int, /) -> bytes: ...


class Part(io.RawIOBase):
    """``size`` bytes of an open file from ``offset``. The descriptor stays the caller's."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = os.pread(self._fd, min(len(buffer), self._end - self._position), self._position)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def skip(self, count: int) -> None:
        self._position = min(self._position + count, self._end)


class Pipe:
    """A descriptor that can only be read once, from its beginning to its end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count and (piece := os.read(self._fd, count - len(data))):
            data += piece
        return bytes(data)


class Seeking:
    """A plain archive in a file, where skipping costs nothing."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._buffered = io.BufferedReader(part, CHUNK)

    def read(self, count: int) -> bytes:
        return self._buffered.read(count)

    def skip(self, count: int) -> None:
        ahead = len(self._buffered.peek()) if count else 0
        self._buffered.read(min(ahead, count))
        self._part.skip(max(0, count - ahead))


class Counted(io.RawIOBase):
    """Counts and hashes what passes."""

    def __init__(self, inner: Reading) -> None:
        self._inner = inner
        self._digest = hashlib.sha256()
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self._digest.update(data)
        self.count += len(data)
        return len(data)

    def drain(self) -> None:
        """Read what is left."""
        while self.read(CHUNK):
            continue

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


class Plain:
    """What is in ``raw``, decompressed if it is compressed (gzip, bzip2, xz, zstd: by its first bytes).

    Raises ``InvalidValue`` when it is damaged or grows too much, and charges ``budget`` for nothing else.
    """

    def __init__(self, raw: Reading, budget: Budget) -> None:
        self._raw = Counted(raw)
        self._budget = budget
        self._digest = hashlib.sha256()  # of what was compressed; the rest is hashed as it is read
        buffered = io.BufferedReader(self._raw, _READ_AHEAD)
        self.compression, self._inner = _decompressed(buffered)
        self.count = 0

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer only at the end."""
        pieces = []
        while count and (data := self._read_some(count)):
            pieces.append(data)
            count -= len(data)
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        while count:
            count -= len(self._read_some(min(count, CHUNK))) or count

    def drain(self) -> None:
        """Read to the end, so that the digests are those of everything."""
        while data := self._read_some(CHUNK):
            self._budget.spend(len(data))
        self._raw.drain()

    @property
    def digest(self) -> str:
        """Of the plain bytes, once all are read."""
        return self._digest.hexdigest() if self.compression else self._raw.digest

    @property
    def raw_digest(self) -> str:
        """Of the bytes as they are stored, once all are read."""
        return self._raw.digest

    def _read_some(self, count: int) -> bytes:
        try:
            data = self._inner.read(min(count, CHUNK))
        except _DAMAGED as error:
            if not self.compression:
                raise
            raise InvalidValue(
                f"its {self.compression} data is damaged or cut short: {error}", hint="fetch it again"
            ) from error
        self.count += len(data)
        if self.compression:
            self._digest.update(data)
            self._budget.check_ratio(self._raw.count, self.count)
        return data


def _decompressed(raw: io.BufferedReader[Counted]) -> tuple[str, Reading]:
    """Name and reader of the compression that ``raw`` begins with; ("", raw) if there is none."""
    start = raw.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return "gzip", gzip.GzipFile(fileobj=raw)
    if start.startswith(b"BZh"):
        return "bzip2", _Streams(raw, bz2.BZ2Decompressor)
    if start == b"\xfd7zXZ\0":
        return "xz", _Streams(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
    # A frame, or one that is to be skipped: some writers put such a one first. What is cut short just
    # ends; the tar archive inside then lacks its end.
    if start.startswith(b"\x28\xb5\x2f\xfd") or (start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50):
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        return "zstd", decompressor.stream_reader(raw, read_across_frames=True)
    return "", raw


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...


class _Streams:
    """One compressed stream after the other, as the bzip2 and xz programs read them."""

    def __init__(self, raw: io.BufferedReader[Counted], new: Callable[[], _Decompressor]) -> None:
        self._raw = raw
        self._new = new
        self._current = new()
        self._input = b""

    def read(self, count: int) -> bytes:
        while True:
            if self._current.eof:
                rest = self._current.unused_data.lstrip(b"\0")
                if not rest and not self._raw.peek(1):
                    return b""
                self._current, self._input = self._new(), rest
            if self._current.needs_input and not self._input:
                self._input = self._raw.read(_READ_AHEAD)
                if not self._input:
                    raise EOFError("the end is missing")
            data, self._input = self._current.decompress(self._input, count), b""
            if data:
                return data
