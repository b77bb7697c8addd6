"""Snapshots of disks in use: what a power cut would have left, and nobody waits."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import orderly
import pytest

from conftest import wait_for
from spriggan.linux import btrfs

A, B = (f"sprite-{uuid.UUID(int=number)}" for number in (1, 2))
ROUNDS = int(os.environ.get("SPRIGGAN_TEST_SNAPSHOTS", "15"))


@pytest.fixture
def live(bench):
    """A mounted disk."""
    bench.pool.create_disk(A, 2)
    return bench.mount(bench.pool.disk_path(A))


@pytest.fixture
def live_fd(live):
    fd = os.open(live, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@contextlib.contextmanager
def orderly_writers(place):
    """Run the orderly programs; yields the file that says how far they know to have come."""
    acknowledged = Path("/dev/shm") / f"spriggan-{uuid.uuid4()}"
    acknowledged.write_bytes(bytes(16))
    process = subprocess.Popen(
        [sys.executable, orderly.__file__, place, acknowledged], start_new_session=True
    )
    try:
        assert wait_for(lambda: min(orderly.acknowledged(acknowledged)) > 20, 60)
        yield acknowledged
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        acknowledged.unlink()
        assert wait_for(lambda: not alive(process.pid), 20)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def check(bench, disk, known):
    """Mount a disk, and look at what the programs left."""
    place = bench.mount(bench.pool.disk_path(disk))
    try:
        orderly.check(place, known)
    finally:
        bench.umount(place)


def flawless(image):
    """What e2fsck thinks of an image that nobody has mounted."""
    found = subprocess.run(["e2fsck", "-fn", image], check=False, capture_output=True, text=True)
    return found.returncode == 0 and "recover" not in found.stdout, found.stdout


def test_a_snapshot_under_writers_is_what_a_power_cut_leaves(bench, live, live_fd):
    pool = bench.pool
    with orderly_writers(live) as acknowledged:
        for number in range(ROUNDS):
            known = orderly.acknowledged(acknowledged)
            checkpoint = pool.checkpoint_dir(A, f"v{number}")
            pool.snapshot(A, checkpoint, live_fd)
            well, said = flawless(checkpoint / "disk.img")
            assert well, said
            clone = f"sprite-{uuid.uuid4()}"
            pool.clone_disk(checkpoint, clone)
            check(bench, clone, known)
            pool.delete(pool.disk_dir(clone))


def test_the_check_tells_a_copy_from_a_snapshot(bench, live):
    """A copy made while others write is none of one moment. If it passed, the test above would show nothing."""
    pool = bench.pool
    with orderly_writers(live) as acknowledged:
        known = orderly.acknowledged(acknowledged)
        btrfs.create_subvolume(pool.disk_dir(B))
        copy_slowly(pool.disk_path(A), pool.disk_path(B))
        with pytest.raises((AssertionError, OSError)):
            check(bench, B, known)


def copy_slowly(source, target):
    with source.open("rb") as reading, target.open("wb") as writing:
        writing.truncate(os.fstat(reading.fileno()).st_size)
        place = 0
        while True:
            try:
                place = os.lseek(reading.fileno(), place, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(reading.fileno(), place, os.SEEK_HOLE)
            while place < end:
                piece = os.pread(reading.fileno(), min(1 << 20, end - place), place)
                os.pwrite(writing.fileno(), piece, place)
                place += len(piece)
                time.sleep(0.005)


def test_what_was_written_before_is_in_it_without_fsync(bench, live, live_fd):
    for number in range(20):
        (live / f"file{number}").write_bytes(os.urandom(300_000))
    before = {path.name: path.read_bytes() for path in live.glob("file*")}
    bench.pool.snapshot(A, bench.pool.disk_dir(B), live_fd, read_only=False)
    place = bench.mount(bench.pool.disk_path(B))
    assert {path.name: path.read_bytes() for path in place.glob("file*")} == before


def test_a_live_fork_is_writable(bench, live, live_fd):
    (live / "mine").write_text("mine")
    bench.pool.snapshot(A, bench.pool.disk_dir(B), live_fd, read_only=False)
    place = bench.mount(bench.pool.disk_path(B))
    assert (place / "mine").read_text() == "mine"
    (place / "yours").write_text("yours")
    assert not (live / "yours").exists()
