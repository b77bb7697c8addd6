"""The log of a disk's writes becomes disks that a power cut could leave, and no others."""

from __future__ import annotations

import random
from pathlib import Path

import write_log

FLUSH = None
BLOCKS = [bytes([n]) * 1024 for n in (1, 2, 3, 4)]


def make(log: Path, writes: list[tuple[int, bytes] | None], *, flushed: int | None = None) -> Path:
    """A log file as QEMU writes it: sector and data of each write."""
    data, last = b"", 0
    for number, write in enumerate(writes, start=1):
        if write is FLUSH:
            data += write_log.ENTRY.pack(0, 0, 1, 0).ljust(512, b"\0")
            last = number
        else:
            data += write_log.ENTRY.pack(write[0], len(write[1]) // 512, 0, 0).ljust(512, b"\0") + write[1]
    count = last if flushed is None else flushed
    log.write_bytes(write_log.SUPER.pack(write_log.MAGIC, 1, count, 512).ljust(512, b"\0") + data)
    return log


def test_what_was_flushed_is_there_and_the_rest_may_be(tmp_path: Path) -> None:
    writes = [(0, BLOCKS[0]), (2, BLOCKS[1]), FLUSH, (4, BLOCKS[2]), (0, BLOCKS[3])]
    log = make(tmp_path / "log", writes)
    entries = write_log.entries(log)
    assert write_log.flushed(log) == 3 and len(entries) == 5
    disk, seen = tmp_path / "disk", set()
    for seed in range(60):
        disk.write_bytes(bytes(4096))
        write_log.replay(log, disk, *write_log.cut(entries, 5), random.Random(seed))
        data = disk.read_bytes()
        assert data[1024:2048] == BLOCKS[1]
        assert {data[0], data[512]} <= {1, 4} and {data[2048], data[2560]} <= {0, 3}
        seen.add((data[0], data[512], data[2048], data[2560]))
    assert len(seen) > 8  # lost, whole and torn, of both


def test_a_cut_is_at_the_last_flush_before_it(tmp_path: Path) -> None:
    entries = write_log.entries(make(tmp_path / "log", [(0, BLOCKS[0]), FLUSH, (2, BLOCKS[1]), FLUSH]))
    assert write_log.cut(entries, 1) == ([], entries[:1])
    assert write_log.cut(entries, 3) == (entries[:2], entries[2:3])
    assert write_log.cut(entries, 4) == (entries, [])


def test_a_log_that_was_cut_off_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    log = make(tmp_path / "log", [(0, BLOCKS[0]), FLUSH, (2, BLOCKS[1])])
    whole = log.read_bytes()
    log.write_bytes(whole[:-512])
    assert len(write_log.entries(log)) == 2
    log.write_bytes(whole + bytes(4096))  # room for an entry that nobody came to write
    assert len(write_log.entries(log)) == 3


def test_a_flush_behind_a_hole_makes_all_before_it_sure(tmp_path: Path) -> None:
    log = make(tmp_path / "log", [(0, BLOCKS[0])], flushed=3)
    entries = write_log.entries(log)
    assert write_log.cut(entries, 1, complete=write_log.flushed(log)) == (entries, [])
