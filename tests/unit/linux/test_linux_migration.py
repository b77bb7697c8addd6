"""The readiness to move processes, on a pipe in the place of the cgroup's file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import serving
from spriggan.linux import migration
from spriggan.linux.cgroup import Hierarchies
from spriggan.linux.migration import Readiness


@pytest.fixture
def beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The end to read from: who writes waits while it is full, as for a lock."""
    os.mkfifo(tmp_path / "cgroup.procs")
    monkeypatch.setattr(migration, "_own_group", lambda _: tmp_path)
    fd = os.open(tmp_path / "cgroup.procs", os.O_RDWR | os.O_NONBLOCK)
    yield fd
    os.close(fd)


@pytest.fixture
def readiness(beats: int) -> Iterator[Readiness]:
    made = Readiness(Hierarchies(Path("/none")))
    yield made
    drain(beats)  # or a thread that waits for room would not end
    made.close()


def drain(fd: int) -> int:
    size = 0
    try:
        while True:
            size += len(os.read(fd, 1 << 20))
    except BlockingIOError:
        return size


def test_it_goes_on_for_a_while(beats: int, readiness: Readiness) -> None:
    readiness.expect()
    counted = 0

    def several() -> bool:
        nonlocal counted
        counted += drain(beats)
        return counted > 10

    serving.until(several)


def test_a_lock_that_is_not_to_be_had_is_left_alone(
    beats: int, readiness: Readiness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "LASTS_S", 3600.0)
    try:
        while True:
            os.write(beats, bytes(4096))
    except BlockingIOError:
        pass
    readiness.expect()
    with pytest.raises(AssertionError):
        serving.until(lambda: readiness._not_before, timeout=2 * migration.CONTENDED_S)
    drain(beats)
    serving.until(lambda: readiness._not_before)
    drain(beats)
    readiness.expect()
    assert not readiness._wanted.wait(0.1)
    assert drain(beats) == 0
