"""Programs whose data shows whether writes were kept in order, and what must be true of it after a power cut.

``python orderly.py DIRECTORY ACKNOWLEDGED`` runs them all until it is killed. ACKNOWLEDGED is a file of two
numbers, in memory: how far the log and the database are known to be on the disk.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import sqlite3
import struct
import sys
from collections.abc import Callable
from pathlib import Path

BLOCK, SLOTS, NAMES = 4096, 256, 50
_NUMBER = struct.Struct("=Q")
_LOG, _DATABASE = 0, 8


def log(place: Path, acknowledged: mmap.mmap) -> None:
    """Append a number, fsync, say so."""
    fd = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        number += 1
        os.write(fd, _NUMBER.pack(number))
        os.fsync(fd)
        _NUMBER.pack_into(acknowledged, _LOG, number)


def pairs(place: Path, acknowledged: mmap.mmap) -> None:
    """Overwrite a block of one file, make it durable, then the same block of another."""
    one, two = (os.open(place / name, os.O_RDWR | os.O_CREAT) for name in ("one", "two"))
    number = 0
    while True:
        number += 1
        block = _NUMBER.pack(number) * (BLOCK // _NUMBER.size)
        for fd in (one, two):
            os.pwrite(fd, block, number % SLOTS * BLOCK)
            os.fdatasync(fd)


def names(place: Path, acknowledged: mmap.mmap) -> None:
    """Replace whole files: write under another name, fsync, rename; delete some."""
    (place / "names").mkdir()
    while True:
        content = os.urandom(random.randrange(200_000))
        new = place / "names" / ".new"
        with new.open("wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        new.rename(place / "names" / f"f{random.randrange(NAMES)}")
        if random.random() < 0.2:
            (place / "names" / f"f{random.randrange(NAMES)}").unlink(missing_ok=True)


def churn(place: Path, acknowledged: mmap.mmap) -> None:
    """Much that nobody waits for: dirty pages, new and deleted files, discards."""
    (place / "churn").mkdir()
    number = 0
    while True:
        number += 1
        (place / "churn" / str(number % 200)).write_bytes(os.urandom(random.randrange(400_000)))
        (place / "churn" / str(random.randrange(200))).unlink(missing_ok=True)


def database(place: Path, acknowledged: mmap.mmap) -> None:
    connection = sqlite3.connect(place / "state.db", isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA wal_autocheckpoint=20"):
        connection.execute(statement)
    connection.execute("CREATE TABLE entry (number INTEGER PRIMARY KEY, text TEXT)")
    connection.execute("CREATE TABLE total (entries INTEGER)")
    connection.execute("INSERT INTO total VALUES (0)")
    number = 0
    while True:
        number += 1
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO entry VALUES (?, ?)", (number, os.urandom(300).hex()))
        connection.execute("UPDATE total SET entries = entries + 1")
        connection.execute("COMMIT")
        _NUMBER.pack_into(acknowledged, _DATABASE, number)


PROGRAMS: list[Callable[[Path, mmap.mmap], None]] = [log, pairs, names, churn, database]


def acknowledged(file: Path) -> tuple[int, int]:
    """How far the log and the database were known to be durable at this moment."""
    data = file.read_bytes()
    return _NUMBER.unpack_from(data, _LOG)[0], _NUMBER.unpack_from(data, _DATABASE)[0]


def check(place: Path, known: tuple[int, int]) -> None:
    """Raise ``AssertionError`` if what lies in ``place`` is not what a power cut could have left.

    ``known`` is what had been acknowledged before.
    """
    _check_log((place / "log").read_bytes(), known[0])
    _check_pairs((place / "one").read_bytes(), (place / "two").read_bytes())
    for file in (place / "names").glob("f*"):
        data = file.read_bytes()
        assert hashlib.sha256(data[32:]).digest() == data[:32], f"{file.name} was renamed before it was there"
    _check_database(place / "state.db", known[1])


def _check_log(data: bytes, known: int) -> None:
    numbers = [number for (number,) in _NUMBER.iter_unpack(data[: len(data) // 8 * 8])]
    assert numbers[:known] == list(range(1, known + 1)), f"{known} entries of the log were acknowledged"


def _check_pairs(one: bytes, two: bytes) -> None:
    before, after = _numbers(one), _numbers(two)
    newest = max(after, default=0)
    for slot, number in enumerate(after):
        assert before[slot] >= number, (
            f"block {slot}: {number} in the second file, {before[slot]} in the first"
        )
    for number in range(max(1, newest - SLOTS + 1), newest + 1):
        assert before[number % SLOTS] >= number, f"{newest} is there, {number} before it is not"


def _numbers(data: bytes) -> list[int]:
    found = []
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        assert block == block[: _NUMBER.size] * (len(block) // _NUMBER.size), f"the block at {start} is torn"
        found.append(_NUMBER.unpack_from(block)[0])
    return found


def _check_database(file: Path, known: int) -> None:
    connection = sqlite3.connect(file)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (entries,) = connection.execute("SELECT count(*) FROM entry").fetchone()
        assert connection.execute("SELECT entries FROM total").fetchone() == (entries,)
        assert entries >= known, f"{known} entries of the database were acknowledged, {entries} are there"
    finally:
        connection.close()


def main(place: Path, file: Path) -> None:
    with file.open("r+b") as opened:
        shared = mmap.mmap(opened.fileno(), 16)
    for program in PROGRAMS[1:]:
        if os.fork() == 0:
            program(place, shared)
    PROGRAMS[0](place, shared)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
