"""Tar archives made by hand, so that they can be as wrong as somebody means them to be."""

from __future__ import annotations

import io

BLOCK = 512
END = bytes(2 * BLOCK)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int | bytes = 0,
    mode: int = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_000_000_000,
    target: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """One header block. Numbers may be given as the bytes of their field."""

    def number(value: int | bytes, width: int) -> bytes:
        return value if isinstance(value, bytes) else b"%0*o\0" % (width - 1, value)

    block = bytearray(BLOCK)
    for start, data in (
        (0, name),
        (100, number(mode, 8)),
        (108, number(uid, 8)),
        (116, number(gid, 8)),
        (124, number(size, 12)),
        (136, number(mtime, 12)),
        (148, b" " * 8),
        (156, kind),
        (157, target),
        (257, magic),
        (329, number(0, 8)),
        (337, number(0, 8)),
        (345, prefix),
        (500, tail),
    ):
        block[start : start + len(data)] = data
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def base256(value: int, width: int) -> bytes:
    """A number as GNU tar writes those that do not fit."""
    return bytes([0x80 if value >= 0 else 0xFF]) + value.to_bytes(width - 1, "big", signed=value < 0)


def pax(**records: bytes | str) -> bytes:
    """An extended header for the next entry; ``__`` in a key stands for a dot."""
    return pax_header({key.replace("__", "."): value for key, value in records.items()})


def pax_header(records: dict[str, bytes | str], kind: bytes = b"x") -> bytes:
    data = b""
    for key, value in records.items():
        rest = b" %s=%s\n" % (key.encode(), value if isinstance(value, bytes) else value.encode())
        length = len(rest) + 1
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        data += str(length).encode() + rest
    return header(b"pax", kind, size=len(data)) + padded(data)


def long(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU tar's header for a name (or, with ``K``, a target) that does not fit."""
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def file(name: str | bytes, content: bytes = b"x", **options: object) -> bytes:
    return header(_bytes(name), size=len(content), **options) + padded(content)  # type: ignore[arg-type]


def directory(name: str | bytes, **options: object) -> bytes:
    return header(_bytes(name), b"5", **{"mode": 0o755, **options})  # type: ignore[arg-type]


def symlink(name: str | bytes, target: str | bytes, **options: object) -> bytes:
    return header(_bytes(name), b"2", target=_bytes(target), **options)  # type: ignore[arg-type]


def hardlink(name: str | bytes, target: str | bytes, **options: object) -> bytes:
    return header(_bytes(name), b"1", target=_bytes(target), **options)  # type: ignore[arg-type]


def device(name: str | bytes, kind: bytes = b"3") -> bytes:
    return header(_bytes(name), kind)


def fifo(name: str | bytes) -> bytes:
    return header(_bytes(name), b"6")


def archive(*entries: bytes) -> bytes:
    return b"".join(entries) + END


class Bytes(io.BytesIO):
    """Bytes as the reader of archives takes them."""

    def skip(self, count: int) -> None:
        self.read(count)


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()
