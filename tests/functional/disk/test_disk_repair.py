"""Repairs at the level of the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spriggan.errors import Conflict
from spriggan.linux import loop

SPRITE = "sprite-00000000-0000-0000-0000-000000000001"


def damage(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(4096 + 0x1E)  # the checksum of a group's descriptor
        file.write(b"xx")


def test_a_disk_in_use_is_not_touched(bench: Any) -> None:
    bench.pool.create_disk(SPRITE, 1)
    place = bench.mount(bench.pool.disk_path(SPRITE))
    with pytest.raises(Conflict, match="in use"):
        bench.pool.repair(SPRITE)
    bench.umount(place)
    with loop.attach(bench.pool.disk_path(SPRITE)), pytest.raises(Conflict, match="in use"):
        bench.pool.repair(SPRITE)


def test_a_repaired_disk_mounts_and_no_loop_device_stays(bench: Any) -> None:
    bench.pool.create_disk(SPRITE, 1)
    image = bench.pool.disk_path(SPRITE)
    damage(image)
    with pytest.raises(OSError, match="needs cleaning"):
        bench.mount(image)
    done = bench.pool.repair(SPRITE)
    assert done.mended
    assert "FIXED" in done.report
    assert "/dev/loop" not in done.report
    assert not loop.find(image)
    bench.umount(bench.mount(image))


def test_it_is_not_tried_twice_before_the_disk_mounted(bench: Any) -> None:
    bench.pool.create_disk(SPRITE, 1)
    image = bench.pool.disk_path(SPRITE)
    damage(image)
    first = bench.pool.repair(SPRITE)
    damage(image)
    second = bench.pool.repair(SPRITE)
    assert second.again
    assert not second.mended
    assert second.report == first.report
    bench.pool.mounted_well(SPRITE)
    third = bench.pool.repair(SPRITE)
    assert third.mended
    assert not third.again


def test_a_long_report_is_cut_in_the_middle(bench: Any) -> None:
    bench.pool.create_disk(SPRITE, 20)
    with bench.pool.disk_path(SPRITE).open("r+b") as file:
        for group in range(160):
            file.seek(4096 + 64 * group + 0x1E)
            file.write(b"xx")
    done = bench.pool.repair(SPRITE)
    assert done.mended
    assert len(done.report) < 5000
    assert "[…]" in done.report
