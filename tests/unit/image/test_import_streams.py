"""Compressed streams: recognised by content, whole or refused, and never larger than they may be."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from spriggan.errors import InvalidValue
from spriggan.image.importing.limits import Budget, Limits
from spriggan.image.importing.streams import Part, Pipe, Plain, Seeking

Compress = Callable[[bytes], bytes]
COMPRESSIONS: dict[str, Compress] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
}
DATA = os.urandom(300_000) + bytes(3_000_000)
each = pytest.mark.parametrize("name", COMPRESSIONS)


def plain(data: bytes, **limits: int) -> Plain:
    return Plain(io.BytesIO(data), Budget(Limits(**limits)))


def everything(stream: Plain) -> bytes:
    return b"".join(iter(lambda: stream.read(70_000), b""))


@each
def test_what_went_in_comes_out(name: str) -> None:
    compressed = COMPRESSIONS[name](DATA)
    stream = plain(compressed)
    assert stream.compression == name
    assert everything(stream) == DATA
    stream.drain()
    assert stream.digest == hashlib.sha256(DATA).hexdigest()
    assert stream.raw_digest == hashlib.sha256(compressed).hexdigest()


def test_what_is_not_compressed() -> None:
    stream = plain(DATA)
    assert (stream.compression, everything(stream)) == ("", DATA)
    stream.drain()
    assert stream.digest == stream.raw_digest == hashlib.sha256(DATA).hexdigest()
    assert everything(plain(b"")) == b""
    assert everything(plain(b"\x1f")) == b"\x1f"


@each
def test_several_streams_in_a_row_are_one(name: str) -> None:
    assert everything(plain(COMPRESSIONS[name](b"one") + COMPRESSIONS[name](b"two"))) == b"onetwo"


def test_frames_that_are_to_be_skipped() -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    assert everything(plain(skipped + zstandard.compress(b"one") + skipped)) == b"one"


@each
def test_skipping_is_reading(name: str) -> None:
    stream = plain(COMPRESSIONS[name](DATA))
    stream.skip(299_999)
    assert stream.read(2) == DATA[299_999:300_001]
    stream.skip(10**9)
    assert stream.read(1) == b""
    assert stream.digest == hashlib.sha256(DATA).hexdigest()


@each
def test_damaged_or_cut_short(name: str) -> None:
    compressed = COMPRESSIONS[name](DATA)
    damaged = bytearray(compressed)
    damaged[len(damaged) // 3] ^= 0xFF
    for wrong in (bytes(damaged), compressed + b"garbage"):
        with pytest.raises(InvalidValue, match="damaged or cut short"):
            everything(plain(wrong))
    try:
        rest = everything(plain(compressed[: len(compressed) // 2]))
    except InvalidValue as error:
        assert "cut short" in error.message
    else:
        assert name == "zstd" and len(rest) < len(DATA), "the archive in it has no end then"


@each
def test_a_bomb_goes_off_early(name: str) -> None:
    bomb = COMPRESSIONS[name](bytes(100 << 20))
    stream = plain(bomb)
    with pytest.raises(InvalidValue, match="more than 200 times as many") as error:
        everything(stream)
    assert "--max-ratio" in error.value.hint
    assert stream.count < 90 << 20


def test_a_large_dictionary_is_not_allocated() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    with pytest.raises(InvalidValue, match=r"Memory|memory"):
        everything(plain(lzma.compress(b"x", filters=filters)))
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = writer.compress(os.urandom(1 << 20)) + writer.flush()
    with pytest.raises(InvalidValue, match="emory"):
        everything(plain(data))


def test_a_pipe_that_gives_little_at_a_time() -> None:
    reader, writer = os.pipe()
    compressed = gzip.compress(b"slowly")
    if os.fork() == 0:
        for byte in compressed:
            os.write(writer, bytes([byte]))
        os._exit(0)
    os.close(writer)
    try:
        assert everything(Plain(Pipe(reader), Budget(Limits()))) == b"slowly"
    finally:
        os.close(reader)
        os.wait()


def test_a_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"before|0123456789|after")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert Part(fd, 7, 10).read() == b"0123456789"
        seeking = Seeking(Part(fd, 7, 10))
        assert seeking.read(2) == b"01"
        seeking.skip(3)
        assert seeking.read(2) == b"56"
        seeking.skip(100)
        assert seeking.read(5) == b""
        assert Part(fd, 100, 10).read() == b"", "a file that has shrunk"
    finally:
        os.close(fd)


def test_seeking_far(tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    (tmp_path / "f").write_bytes(data)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        seeking = Seeking(Part(fd, 0, len(data)))
        assert seeking.read(512) == data[:512]
        seeking.skip(4 << 20)
        assert seeking.read(512) == data[512 + (4 << 20) :][:512]
    finally:
        os.close(fd)
