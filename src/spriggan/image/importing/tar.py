"""A tar archive as a stream of entries, read with distrust.

Headers are decoded by the standard library; the loop around them is ours. ``tarfile``'s own takes
extension headers of any size into memory, and as of the Pythons in Debian 12 and Ubuntu 24.04 it can be
made to loop for ever (CVE-2025-8194) and takes what GNU tar keeps beside a name for a part of it.

The formats: POSIX.1-2001 (pax and ustar), GNU tar's manual ("Basic Tar Format") and star(5).
"""

from __future__ import annotations

import enum
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from spriggan.errors import InvalidValue
from spriggan.image.importing.limits import Budget

BLOCK = 512
CHUNK = 1 << 20
# A path has at most 4,096 bytes, and each of the attributes of a file at most 64 KiB.
_MAX_LONG_NAME = 8 << 10
_MAX_PAX = 1 << 20
_LAST_TIME_NS = (2**33 - 1) * 10**9  # the year 2242, which every file system here can hold
_MAX_ID = 2**32 - 1

_XATTR = "SCHILY.xattr."
_TIME = re.compile(r"(-?[0-9]{1,18})(?:\.([0-9]{0,40}))?")
# In a global header these would change every entry that follows.
_NOT_GLOBAL = ("path", "linkpath", "size", "uid", "gid", "GNU.sparse.")


class Stream(Protocol):
    """Plain bytes, one after the other."""

    def read(self, count: int, /) -> bytes:
        """The next ``count`` bytes; fewer only at the end."""
        ...

    def skip(self, count: int, /) -> None:
        """Pass over ``count`` bytes."""
        ...


class Kind(enum.Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    FIFO = "FIFO"
    DEVICE = "device node"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the archive has it; nothing about its name has been judged."""

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int  # of what follows; 0 unless it is a file
    target: bytes  # of a link
    xattrs: dict[str, bytes] = field(default_factory=dict)


_KINDS = {
    tarfile.REGTYPE: Kind.FILE,
    tarfile.AREGTYPE: Kind.FILE,
    tarfile.CONTTYPE: Kind.FILE,
    tarfile.DIRTYPE: Kind.DIRECTORY,
    tarfile.SYMTYPE: Kind.SYMLINK,
    tarfile.LNKTYPE: Kind.HARDLINK,
    tarfile.FIFOTYPE: Kind.FIFO,
    tarfile.CHRTYPE: Kind.DEVICE,
    tarfile.BLKTYPE: Kind.DEVICE,
}


@dataclass
class _Extension:
    """What the headers before an entry's own say about it."""

    name: bytes | None = None  # GNU
    target: bytes | None = None
    pax: dict[str, bytes] | None = None


class Tar:
    """Iterate over the entries; ``chunks`` gives the content of the one that came last."""

    def __init__(self, stream: Stream, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._left = 0  # of the current entry's content
        self._padding = 0
        self.position = 0  # where the current entry's content, or the next header, begins

    def __iter__(self) -> Iterator[Entry]:
        extension = _Extension()
        while (block := self._next_header()) is not None:
            header = _decode(block)
            kind = _type(block)
            if kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
                if extension.pax is not None:
                    raise _malformed("an entry has two extended headers")
                extension.pax = _pax(self._extension(header, _MAX_PAX))
            elif kind == tarfile.XGLTYPE:
                _check_global(_pax(self._extension(header, _MAX_PAX)))
            elif kind == tarfile.GNUTYPE_LONGNAME:
                if extension.name is not None:
                    raise _malformed("an entry has two long names")
                extension.name = _long(self._extension(header, _MAX_LONG_NAME))
            elif kind == tarfile.GNUTYPE_LONGLINK:
                if extension.target is not None:
                    raise _malformed("an entry has two long link targets")
                extension.target = _long(self._extension(header, _MAX_LONG_NAME))
            else:
                self._budget.entry()
                entry = _entry(header, block, extension)
                extension = _Extension()
                self._budget.afford(entry.size)
                self._budget.describe(_described(entry))
                self._left, self._padding = entry.size, -entry.size % BLOCK
                yield entry
                self._skip(self._left + self._padding)
                self._left = self._padding = 0
        if extension != _Extension():
            raise _malformed("an extended header is the last of its entries")

    def chunks(self) -> Iterator[bytes]:
        """The content of the current entry, in pieces."""
        while self._left:
            data = self._read(min(self._left, CHUNK))
            self._left -= len(data)
            yield data

    def _next_header(self) -> bytes | None:
        block = self._read(BLOCK)
        return None if block == bytes(BLOCK) else block

    def _extension(self, header: tarfile.TarInfo, most: int) -> bytes:
        if not 0 <= header.size <= most:
            raise _malformed(f"an extended header of {header.size} bytes; {most} are taken at most")
        return self._read(header.size + -header.size % BLOCK)[: header.size]

    def _read(self, count: int) -> bytes:
        self._budget.spend(count)
        data = self._stream.read(count)
        self.position += len(data)
        if len(data) != count:
            raise _malformed("it ends too early: part of it is missing")
        return data

    def _skip(self, count: int) -> None:
        self._budget.spend(count)
        self._stream.skip(count)
        self.position += count


def _described(entry: Entry) -> int:
    attributes = sum(len(name) + len(value) for name, value in entry.xattrs.items())
    return len(entry.name) + len(entry.target) + attributes


def check_beginning(data: bytes) -> None:
    """Raise ``InvalidValue`` if ``data`` cannot be what a tar archive begins with."""
    if len(data) < BLOCK:
        raise _malformed("it ends too early: part of it is missing")
    if data[:BLOCK] == bytes(BLOCK):
        raise _malformed("it is empty")
    _decode(data[:BLOCK])


def shown(name: bytes | str) -> str:
    """A name for an error message: recognisable, printable and short."""
    text = name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return f"'{text}'" if len(text) <= 160 else f"'{text[:80]}…{text[-79:]}'"


def _malformed(why: str) -> InvalidValue:
    return InvalidValue(f"this is not a well-formed tar archive: {why}", hint="make or fetch it again")


def _refused(name: bytes, why: str) -> InvalidValue:
    return InvalidValue(f"the entry {shown(name)} {why}")


def _decode(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise _malformed(f"a header is damaged ({error})") from error


def _entry(header: tarfile.TarInfo, block: bytes, extension: _Extension) -> Entry:
    pax = extension.pax or {}
    name = pax.get("path", extension.name)
    if name is None:
        name = _header_name(block)
    if _type(block) == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
        raise InvalidValue(
            f"the entry {shown(name)} is a sparse file in a form that is not read here",
            hint="make the archive again without --sparse",
        )
    kind = _KINDS.get(_type(block))
    if kind is None:
        raise _refused(name, f"is of the unknown type {_type(block)!r}")
    if _type(block) == tarfile.AREGTYPE and name.endswith(b"/"):
        kind = Kind.DIRECTORY  # as tar programs from before POSIX wrote it
    size = _number(pax, "size", header.size, name)
    if size < 0:
        raise _refused(name, f"has the size {size}")
    target = b""
    if kind in (Kind.SYMLINK, Kind.HARDLINK):
        target = pax.get(
            "linkpath", extension.target if extension.target is not None else _cut(block[157:257])
        )
    return Entry(
        name=name,
        kind=kind,
        mode=header.mode & 0o7777,
        uid=_id(pax, "uid", header.uid, name),
        gid=_id(pax, "gid", header.gid, name),
        mtime_ns=_time(pax, header.mtime, name),
        # As Go's archive/tar, with which most images are written: what is no file has no content,
        # whatever its size field says.
        size=size if kind is Kind.FILE else 0,
        target=target,
        xattrs={key.removeprefix(_XATTR): value for key, value in pax.items() if key.startswith(_XATTR)},
    )


def _type(block: bytes) -> bytes:
    """As it is written: the decoder judges it by the short name, which may not be the one that counts."""
    return block[156:157]


def _header_name(block: bytes) -> bytes:
    name = _cut(block[:100])
    if block[257:263] != b"ustar\0":  # GNU tar keeps times where POSIX has the prefix
        return name
    prefix = _cut(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
    return prefix + b"/" + name if prefix else name


def _cut(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _long(data: bytes) -> bytes:
    name = data.rstrip(b"\0")
    if b"\0" in name:
        raise _refused(name, "has a NUL byte in its name")
    return name


def _pax(data: bytes) -> dict[str, bytes]:
    """The records of an extended header: ``LENGTH KEY=VALUE`` and a newline."""
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        digits, space, _ = data[position : position + 20].partition(b" ")
        if not space or not digits.isdigit():
            raise _malformed("an extended header is damaged")
        end = position + int(digits)
        record = data[position + len(digits) + 1 : end - 1]
        key, equals, value = record.partition(b"=")
        if end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key or end <= position:
            raise _malformed("an extended header is damaged")
        name = key.decode("utf-8", "surrogateescape")
        if name in records:
            raise _malformed(f"an extended header has two values for {shown(key)}")
        records[name] = value
        position = end
    return records


def _check_global(pax: dict[str, bytes]) -> None:
    for key in pax:
        if key.startswith(_NOT_GLOBAL):
            raise _malformed(f"a global header sets {key!r} for all entries")


def _number(pax: dict[str, bytes], key: str, default: int, name: bytes) -> int:
    text = pax.get(key)
    if text is None:
        return default
    if not text.isdigit() or len(text) > 20:
        raise _refused(name, f"has no proper {key}: {shown(text)}")
    return int(text)


def _id(pax: dict[str, bytes], key: str, default: int, name: bytes) -> int:
    number = _number(pax, key, default, name)
    if not 0 <= number <= _MAX_ID:
        raise _refused(name, f"has the {key} {number}")
    return number


def _time(pax: dict[str, bytes], default: float, name: bytes) -> int:
    """Nanoseconds; what no file system can hold becomes the nearest that it can."""
    nanoseconds = int(default) * 10**9
    if (text := pax.get("mtime")) is not None:
        match = _TIME.fullmatch(text.decode("ascii", "replace"))
        if match is None:
            raise _refused(name, f"has no proper time: {shown(text)}")
        fraction = int((match[2] or "").ljust(9, "0")[:9])
        nanoseconds = int(match[1]) * 10**9 + (-fraction if match[1].startswith("-") else fraction)
    return min(max(nanoseconds, 0), _LAST_TIME_NS)
