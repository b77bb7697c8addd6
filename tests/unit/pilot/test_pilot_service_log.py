"""Lines of a service: cut, kept, rotated, read back and followed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.pilot.services.log import MAX_LINE, Event, Lines, ServiceLog
from spriggan.pilot.services.logfile import DIRECTORY, LogFile


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    return tmp_path


def file(disk: Path, **options: int) -> LogFile:
    return LogFile(disk, "web", **options)


@given(pieces=st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"x", b"\n")), max_size=20))
def test_however_it_comes_it_is_cut_at_line_ends(pieces: list[bytes]) -> None:
    lines = Lines()
    found = [line for piece in pieces for line in lines.feed(piece)] + lines.end()
    whole = b"".join(pieces)
    assert found == whole.split(b"\n")[: None if whole and not whole.endswith(b"\n") else -1]


@given(sizes=st.lists(st.integers(1, 3 * MAX_LINE), max_size=5))
def test_a_line_without_end_is_cut_and_loses_nothing(sizes: list[int]) -> None:
    lines = Lines()
    found = [line for size in sizes for line in lines.feed(b"z" * size)] + lines.end()
    assert b"".join(found) == b"z" * sum(sizes)
    assert all(len(line) <= MAX_LINE for line in found)


def test_the_file_is_rotated_and_its_tail_goes_on_into_the_old_one(disk: Path) -> None:
    log = file(disk, limit=500)
    for number in range(100):
        log.append(b"line %d\n" % number)
    directory = disk / DIRECTORY
    assert sorted(path.name for path in directory.iterdir()) == ["web.log", "web.log.1"]
    assert all(path.stat().st_size <= 500 for path in directory.iterdir())
    current = len((directory / "web.log").read_text().splitlines())
    assert current < 50
    assert log.tail(50) == [b"line %d" % number for number in range(50, 100)]
    assert log.tail(0) == []


def test_a_file_that_was_removed_or_emptied_is_begun_anew(disk: Path) -> None:
    log = file(disk)
    log.append(b"one\n")
    (disk / DIRECTORY / "web.log").unlink()
    log.append(b"two\n")
    assert log.tail(5) == [b"two"]
    os.truncate(disk / DIRECTORY / "web.log", 0)
    log.append(b"three\n")
    assert log.tail(5) == [b"three"]


@pytest.mark.parametrize("trick", ["file", "directory", "fifo", "folder"])
def test_no_trick_leads_elsewhere(disk: Path, tmp_path: Path, trick: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "web.log").write_text("mine\n")
    directory = disk / DIRECTORY
    if trick == "directory":
        directory.symlink_to(outside)
    else:
        directory.mkdir()
        name = directory / "web.log"
        if trick == "file":
            name.symlink_to(outside / "web.log")
        elif trick == "fifo":
            os.mkfifo(name)
        else:
            name.mkdir()
    log = file(disk)
    with pytest.raises(OSError):
        log.append(b"yours\n")
    with pytest.raises(OSError):
        log.tail(5)
    assert (outside / "web.log").read_text() == "mine\n"


def test_a_closed_file_is_not_opened_again(disk: Path) -> None:
    log = file(disk)
    log.append(b"one\n")
    log.close()
    with pytest.raises(OSError):
        log.append(b"two\n")


async def seen(log: ServiceLog, position: int, seconds: float = 0) -> list[Event]:
    over: asyncio.Task[None] = asyncio.create_task(asyncio.sleep(seconds))
    return [event async for event in log.follow(position, over)]


async def test_history_and_what_follows_meet(disk: Path) -> None:
    log = ServiceLog(file(disk))
    await log.write("stdout", [b"one", b"two"])
    history, position = await log.history(1)
    assert [(event["type"], event["data"]) for event in history] == [("stdout", "two\n")]

    async def more() -> None:
        await asyncio.sleep(0.05)
        await log.write("stderr", [b"three"])
        log.note("exit", exit_code=1)

    later = asyncio.create_task(more())
    events = await seen(log, position, 1)
    await later
    assert [(event["type"], event.get("data")) for event in events] == [("stderr", "three\n"), ("exit", None)]


async def test_who_is_slow_is_told_what_is_missing(disk: Path) -> None:
    log = ServiceLog(file(disk), memory=2000)
    for number in range(100):
        await log.write("stdout", [b"%d" % number])
    events = await seen(log, 0)
    first = int(events[1]["data"])
    assert 80 < first < 99 and f"{first} lines" in events[0]["data"]
    assert [int(event["data"]) for event in events[1:]] == list(range(first, 100))


async def test_what_the_disk_does_not_take_is_still_shown(disk: Path) -> None:
    (disk / DIRECTORY).symlink_to("/nowhere")
    log = ServiceLog(file(disk))
    await log.write("stdout", [b"said"])
    assert [event["data"] for event in await seen(log, 0)] == ["said\n"]
    assert (await log.history(5))[0] == []


async def test_an_edited_file_is_read_as_it_is(disk: Path) -> None:
    (disk / DIRECTORY).mkdir()
    lines = [
        b"9999-99-99T99:99:99Z [stdout] no time",
        b"\xff\x00",
        b"2026-01-02T03:04:05.678Z [stderr] fine",
        b"",
    ]
    (disk / DIRECTORY / "web.log").write_bytes(b"\n".join(lines) + b"\n")
    history, _ = await ServiceLog(file(disk)).history(10)
    assert [event["type"] for event in history] == ["stdout", "stdout", "stderr", "stdout"]
    assert history[2] == {"type": "stderr", "data": "fine\n", "timestamp": 1767323045678}
