"""The pool on a real kernel: disks, checkpoints, restores, and what a crash leaves."""

import os
import stat
import subprocess
import sys
import uuid

import pytest

from spriggan.disk import Pool, blank, volume
from spriggan.disk import pool as pool_module
from spriggan.errors import AlreadyExists, Conflict, MissingCapability, NotFound
from spriggan.linux import btrfs, loop, mount

A = f"sprite-{uuid.UUID(int=1)}"
B = f"sprite-{uuid.UUID(int=2)}"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_pool_is_as_it_was_measured_to_be_good(pool):
    assert pool.is_open
    assert pool.image.stat().st_mode & 0o777 == 0o600
    assert pool.image.stat().st_blocks * 512 < 50 << 20
    [path] = loop.find(pool.image)
    [device] = [device for device in loop.attached() if device.path == path]
    assert device.direct_io
    assert {"nodatacow", "discard=async", "noatime"} <= set(
        output("findmnt", "-no", "OPTIONS", pool.root).split(",")
    )
    space = btrfs.space(pool.root)
    assert space.size == pool.image.stat().st_size
    assert space.metadata_total < space.size // 10
    assert "DUP" not in output("btrfs", "filesystem", "df", pool.root)


def test_open_again_and_by_another_server(pool):
    pool.open()
    other = Pool(pool.image.parent)
    assert other.is_open
    other.open()
    assert len(loop.find(pool.image)) == 1


def test_open_after_a_crash_while_making_it(tmp_path, bench):
    bench.pool.close()
    bench.pool.image.rename(tmp_path / "pool.img.new")
    (tmp_path / "pool.img.new").write_bytes(b"half")
    bench.pool.open()
    assert bench.pool.is_open
    assert not (tmp_path / "pool.img.new").exists()


def test_open_while_it_lives_on_in_another_namespace(bench):
    pool = bench.pool
    code = (
        "from spriggan.linux import mount, namespaces; namespaces.unshare(namespaces.CLONE_NEWNS);"
        "mount.mount('none', '/', flags=mount.MS_REC | mount.MS_PRIVATE);"
        f"held = open('{pool.root}/held', 'w'); print(flush=True); input()"
    )
    sleeper = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        sleeper.stdout.readline()
        [device] = loop.find(pool.image)
        with pytest.raises(Conflict, match="still in use"):
            pool.close()
        assert not pool.is_open
        pool.open()
        assert loop.find(pool.image) == [device]
    finally:
        sleeper.communicate(b"\n")
    pool.close()
    assert loop.find(pool.image) == []
    pool.close()


def test_close_names_who_is_in_it(bench):
    bench.pool.create_disk(A, 1)
    place = bench.mount(bench.pool.disk_path(A))
    with pytest.raises(Conflict, match=A), (bench.pool.root / "held").open("w"):
        bench.pool.close()
    assert bench.pool.is_open
    bench.umount(place)
    bench.pool.close()
    assert not bench.pool.is_open


def test_something_else_is_mounted_there(bench):
    bench.pool.close()
    mount.mount("tmpfs", bench.pool.root, "tmpfs")
    try:
        with pytest.raises(Conflict, match="tmpfs"):
            bench.pool.open()
    finally:
        mount.umount(bench.pool.root)


def test_missing_programs_are_named(pool, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingCapability, match=r"mkfs\.btrfs"):
        volume.make(tmp_path / "other.img")
    assert not list(tmp_path.glob("other*"))
    with pytest.raises(MissingCapability, match=r"mkfs\.ext4"):
        blank.make(tmp_path / "blank.img", 1)


def test_a_disk_has_what_a_sprite_needs(bench):
    bench.pool.create_disk(A, 3)
    image = bench.pool.disk_path(A)
    assert image.stat().st_size == 3 << 30
    assert image.stat().st_blocks * 512 < 20 << 20
    root = bench.mount(image)
    for name, mode in blank.TREE.items():
        info = (root / name).stat()
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (mode, 0, 0)
    free = os.statvfs(root)
    assert free.f_bfree - free.f_bavail <= 4096  # nothing kept from the user, but what ext4 always keeps


def test_repeating_is_fine(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    first = pool.subvolume_id(pool.disk_dir(A))
    pool.create_disk(A, 1)
    assert pool.subvolume_id(pool.disk_dir(A)) == first
    for _ in range(2):
        pool.retire(pool.disk_dir(A))
        pool.empty_trash()
        pool.delete(pool.disk_dir(A))
        pool.retire_sprite(A)
    assert pool.subvolume_id(pool.disk_dir(A)) is None


def test_a_blank_half_made_is_made_again(pool):
    draft = pool.root / "blanks" / f"{pool_module._DRAFT}1"
    btrfs.create_subvolume(draft)
    (draft / "disk.img").write_bytes(b"half")
    assert draft in pool.orphans([], [])
    pool.create_disk(A, 1)
    assert not draft.exists()


def test_checkpoint_and_restore_of_a_cold_sprite(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    place = bench.mount(pool.disk_path(A))
    (place / "file").write_text("before")
    bench.umount(place)
    v1 = pool.checkpoint_dir(A, "v1")
    pool.snapshot(A, v1)
    with pytest.raises(AlreadyExists):
        pool.snapshot(A, v1)
    with pytest.raises(OSError, match="Read-only"):
        (v1 / "more").write_text("")

    place = bench.mount(pool.disk_path(A))
    (place / "file").write_text("after")
    upcoming = pool.prepare_swap(A, "v1")
    assert pool.prepare_swap(A, "v1") != upcoming  # repeated after a crash
    upcoming = pool.subvolume_id(pool._next(A))
    pool.swap(A)  # while the old one is still mounted
    assert pool.subvolume_id(pool.disk_dir(A)) == upcoming
    assert (place / "file").read_text() == "after"
    restored = bench.mount(pool.disk_path(A))
    assert (restored / "file").read_text() == "before"
    pool.finish_swap(A)
    pool.empty_trash()
    bench.umount(place)
    bench.umount(restored)
    with pytest.raises(FileNotFoundError):
        pool.swap(A)
    with pytest.raises(NotFound):
        pool.prepare_swap(A, "v9")


def test_a_read_only_checkpoint_can_be_looked_into(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    pool.snapshot(A, pool.checkpoint_dir(A, "v1"))
    place = bench.mount(pool.checkpoint_dir(A, "v1") / "disk.img", read_only=True)
    assert (place / "tmp").is_dir()


def test_everything_of_a_sprite_goes(pool):
    pool.create_disk(A, 1)
    for name in ("v1", "v2"):
        pool.snapshot(A, pool.checkpoint_dir(A, name))
    pool.prepare_swap(A, "v1")
    pool.retire_sprite(A)
    assert pool.orphans([], []) == []
    assert len(list((pool.root / "trash").iterdir())) == 3
    pool.empty_trash()
    assert list((pool.root / "trash").iterdir()) == []


def test_orphans(pool):
    for sprite in (A, B):
        pool.create_disk(sprite, 1)
        pool.snapshot(sprite, pool.checkpoint_dir(sprite, "v1"))
    pool.snapshot(A, pool.checkpoint_dir(A, "v2"))
    pool.prepare_swap(A, "v1")
    assert set(pool.orphans([A], [(A, "v1")])) == {
        pool._next(A),
        pool.disk_dir(B),
        pool.checkpoint_dir(A, "v2"),
        pool.root / "checkpoints" / B,
    }
    pool.retire(pool._next(A))
    assert pool.orphans([A, B], [(A, "v1"), (A, "v2"), (B, "v1")]) == []


def test_usage(bench):
    pool = bench.pool
    pool.create_disk(A, 1)
    place = bench.mount(pool.disk_path(A))
    (place / "data").write_bytes(os.urandom(32 << 20))
    os.sync()
    pool.snapshot(A, pool.checkpoint_dir(A, "v1"))
    usage = pool.usage()
    assert usage.disks[A] > 32 << 20
    assert usage.checkpoints[A]["v1"] > 32 << 20
    assert 32 << 20 < usage.pool_used < usage.pool_allocated + (32 << 20)
    assert 0 < usage.host_free < usage.host_total
