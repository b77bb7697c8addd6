"""Deleted data is free on the host, and the guard sees what is going on."""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from conftest import Bench, wait_for
from spriggan.disk import Reserve
from spriggan.engine.writers import Writers
from spriggan.errors import NoSpace
from spriggan.linux import btrfs, loop, mount

A = f"sprite-{uuid.UUID(int=1)}"
B = f"sprite-{uuid.UUID(int=2)}"
MIB = 1 << 20


def host_bytes(pool):
    return pool.image.stat().st_blocks * 512


def fill(path, size):
    with path.open("wb") as file:
        for left in range(size, 0, -MIB):
            file.write(os.urandom(min(left, MIB)))
        os.fsync(file.fileno())


def test_trim_frees_what_a_sprite_deleted(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    place = bench.mount(pool.disk_path(A))
    fill(place / "big", 200 * MIB)
    before = host_bytes(pool)
    (place / "big").unlink()
    fd = os.open(place, os.O_RDONLY)
    freed = pool.trim([fd])
    os.close(fd)
    assert freed > 190 * MIB
    assert before - host_bytes(pool) > 190 * MIB


def test_trim_frees_what_a_destroyed_sprite_had(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    place = bench.mount(pool.disk_path(A))
    fill(place / "big", 200 * MIB)
    bench.umount(place)
    pool.snapshot(A, pool.checkpoint_dir(A, "v1"))
    pool.retire_sprite(A)
    pool.empty_trash()
    assert pool.trim() > 190 * MIB


def test_reclaim_is_idle_unless_it_is_worth_it(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    place = bench.mount(pool.disk_path(A))
    fill(place / "big", 200 * MIB)
    pool.trim()
    assert pool.reclaim() == 0
    (place / "big").unlink()

    def reclaimed():
        os.sync()  # ext4 discards after its commit, which comes every five seconds by itself,
        btrfs.commit(pool.root)  # and btrfs counts at its own, every thirty seconds
        return pool.reclaim() > 190 * MIB

    assert wait_for(reclaimed)
    assert pool.reclaim() == 0


def test_the_reserve_refuses_and_says_why(pool):
    Reserve(pool, 0).check_growth("create a sprite")
    strict = Reserve(pool, 1 << 60)
    assert strict.pressure() == "critical"
    assert strict.next_check_seconds() == 0.2
    with pytest.raises(NoSpace, match=r"too little space to create a sprite: .* GiB are free") as caught:
        strict.check_growth("create a sprite")
    assert "pool trim" in caught.value.hint


def test_growth_names_the_writers(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    pool.create_disk(B, 1)
    places = [bench.mount(pool.disk_path(sprite)) for sprite in (A, B)]
    writers = Writers("none", pool)
    writers.calm([A, B])
    fill(places[0] / "big", 20 * MIB)
    fill(places[1] / "little", MIB // 4)
    assert writers.find([A, B]) == {A}
    for _ in range(4):
        fill(places[1] / "little", MIB // 2)
    assert writers.find([A, B]) == {A, B}
    writers.calm([A, B])
    assert writers.find([A, B]) == set()


WRITER = """
import os, sys
blob = os.urandom(1 << 20)
with open(sys.argv[1], "wb", buffering=0) as file:
    while True:
        file.write(blob)
"""


@pytest.fixture
def small_host(tmp_path):
    """A host with a file system of 3 GiB, and a pool on it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    image, place = tmp_path / "host.img", tmp_path / "host"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(3 << 30)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    with loop.attach(image) as device:
        mount.mount(device, place, "ext4", options="discard")
    bench = Bench(place)
    try:
        bench.pool.open()
        yield bench
    finally:
        bench.clean_up()
        mount.umount(place)


def test_a_writer_stopped_at_critical_harms_nobody(small_host):
    pool = small_host.pool
    for sprite in (A, B):
        pool.create_disk(sprite, 10)
    greedy, innocent = (small_host.mount(pool.disk_path(sprite)) for sprite in (A, B))
    reserve = Reserve(pool, 1 << 30)
    assert reserve.pressure() == "ok"
    writers = Writers("none", pool)
    writers.calm([A, B])
    writer = subprocess.Popen([sys.executable, "-c", WRITER, greedy / "big"])
    try:
        deadline = time.monotonic() + 60
        while reserve.pressure() != "critical":
            assert time.monotonic() < deadline
            time.sleep(reserve.next_check_seconds())
        writer.send_signal(signal.SIGSTOP)
        os.sync()  # what it had written arrives, and still fits
        assert writers.find([A, B]) == {A}
        with pytest.raises(NoSpace):
            reserve.check_growth("create a sprite")
        fill(innocent / "file", 4 * MIB)
        assert pool.usage().host_free > 100 * MIB
    finally:
        writer.kill()
        writer.wait()
    (greedy / "big").unlink()
    fd = os.open(greedy, os.O_RDONLY)
    pool.trim([fd])
    os.close(fd)
    assert wait_for(lambda: reserve.pressure() == "ok")
