"""Snapshots of disks in use: consistent, short, and never frozen for good."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import pytest

from conftest import wait_for
from spriggan.disk import freezer, snapshot
from spriggan.errors import Broken
from spriggan.linux import freeze, loop, mount

A = f"sprite-{uuid.UUID(int=1)}"

WRITER = """
import os, sys
os.chdir(sys.argv[1])
n = 0
while True:
    with open(f"file{n % 50}", "wb") as file:
        file.write(os.urandom(200_000))
        if n % 7 == 0:
            os.fsync(file.fileno())
    os.rename(f"file{n % 50}", f"name{n % 50}")
    n += 1
"""


@pytest.fixture
def live(bench):
    """A mounted disk."""
    bench.pool.create_disk(A, 1)
    return bench.mount(bench.pool.disk_path(A))


@pytest.fixture
def live_fd(live):
    fd = os.open(live, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    freeze.thaw(fd)
    os.close(fd)


@contextmanager
def writer_in(place):
    process = subprocess.Popen([sys.executable, "-c", WRITER, place])
    try:
        assert wait_for((place / "name9").exists)
        yield
    finally:
        process.kill()
        process.wait()


def can_write(place):
    """Whether a write comes through within a second (from a process, as a hung one cannot be ended here)."""
    process = subprocess.Popen(["touch", place / f"probe{time.monotonic_ns()}"])
    return wait_for(lambda: process.poll() is not None, 1.0) and process.returncode == 0


def test_images_under_a_writer_are_clean(bench, live, live_fd):
    with writer_in(live):
        for number in range(3):
            place = bench.pool.checkpoint_dir(A, f"v{number}")
            pause = bench.pool.snapshot(A, place, live_fd)
            assert pause.freeze_ms + pause.snapshot_ms < 2000
            command = ["e2fsck", "-fn", place / "disk.img"]
            check = subprocess.run(command, check=False, capture_output=True, text=True)
            assert check.returncode == 0, check.stdout
            assert "recover" not in check.stdout + check.stderr
    assert can_write(live)


def test_a_live_fork_is_writable(bench, live, live_fd):
    other = f"sprite-{uuid.UUID(int=2)}"
    (live / "mine").write_text("mine")
    bench.pool.snapshot(A, bench.pool.disk_dir(other), live_fd, read_only=False)
    place = bench.mount(bench.pool.disk_path(other))
    assert (place / "mine").read_text() == "mine"
    (place / "yours").write_text("yours")
    assert not (live / "yours").exists()


def test_a_killed_freezer_is_thawed_for(live, live_fd):
    ready_r, ready_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        freezer.start_watchdog(live_fd)
        freeze.freeze(live_fd)
        os.write(ready_w, b".")
        time.sleep(60)
        os._exit(0)
    os.close(ready_w)
    assert os.read(ready_r, 1) == b"."
    os.close(ready_r)
    assert not can_write(live)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert can_write(live)
    assert time.monotonic() - killed < freezer.LONGEST_FREEZE + 0.5


def test_a_freezer_that_hangs_is_thawed_for(bench, live, live_fd, tmp_path):
    """The snapshot goes into a pool that is frozen itself, and so cannot even be killed."""
    stuck = tmp_path / "stuck.img"
    subprocess.run(["truncate", "-s", "1G", stuck], check=True)
    subprocess.run(["mkfs.btrfs", "-q", stuck], check=True)
    place = tmp_path / "stuck"
    place.mkdir()
    with loop.attach(stuck) as device:
        mount.mount(device, place, "btrfs")
    bench.mounts.append(place)
    stuck_fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    errors = []

    def run():
        with pytest.raises(Broken) as caught:
            snapshot.frozen(live_fd, bench.pool.disk_dir(A), place / "x", read_only=True)
        errors.append(caught.value)

    freeze.freeze(stuck_fd)
    thread = threading.Thread(target=run)
    try:
        thread.start()
        time.sleep(1.0)
        assert not can_write(live)
        assert wait_for(lambda: can_write(live), 2.0)
        assert thread.is_alive()
    finally:
        freeze.thaw(stuck_fd)
        os.close(stuck_fd)
        thread.join()
    assert errors
    assert can_write(live)


def test_a_freeze_cut_short_gives_no_checkpoint(bench, live, live_fd):
    place = bench.pool.checkpoint_dir(A, "v1")
    stop = threading.Event()

    def meddle():
        while not stop.is_set():
            freeze.thaw(live_fd)

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        with pytest.raises(Broken, match="thawed before"):
            bench.pool.snapshot(A, place, live_fd)
    finally:
        stop.set()
        thread.join()
    assert list(place.parent.iterdir()) == []


def test_a_disk_frozen_already_is_not_snapshot(bench, live_fd):
    freeze.freeze(live_fd)
    with pytest.raises(Broken, match="busy"):
        bench.pool.snapshot(A, bench.pool.checkpoint_dir(A, "v1"), live_fd)
    assert freeze.thaw(live_fd)


def test_thaw_all_finds_frozen_disks(bench, live, live_fd):
    bench.pool.snapshot(A, bench.pool.checkpoint_dir(A, "v1"), live_fd)
    bench.mount(bench.pool.checkpoint_dir(A, "v1") / "disk.img", read_only=True)
    assert bench.pool.thaw_all() == []
    freeze.freeze(live_fd)
    blocked = subprocess.Popen(["touch", live / "late"])
    assert bench.pool.thaw_all() == [A]
    assert blocked.wait(5) == 0
    assert bench.pool.thaw_all() == []


def test_thaw_all_finds_a_frozen_disk_that_nobody_mounts_any_more(bench, live):
    fd = os.open(live, os.O_RDONLY | os.O_DIRECTORY)
    freeze.freeze(fd)
    os.close(fd)
    bench.umount(live)
    assert loop.find(bench.pool.disk_path(A)) != []
    assert bench.pool.thaw_all() == [A]
    assert wait_for(lambda: loop.find(bench.pool.disk_path(A)) == [])
