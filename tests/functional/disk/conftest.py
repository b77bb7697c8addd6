"""A real pool in a directory of its own, gone after the test, also when it failed."""

import contextlib
import os
import tempfile
import time
from pathlib import Path

import pytest

from spriggan.disk import Pool
from spriggan.errors import MissingCapability
from spriggan.linux import copies, loop, mount


class Bench:
    """A pool and the places where disks of it are mounted."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.pool = Pool(data)
        self.mounts: list[Path] = []

    def mount(self, image: Path, *, read_only: bool = False) -> Path:
        place = Path(tempfile.mkdtemp(prefix="mount", dir=self.data))
        flags = mount.MS_NOATIME | (mount.MS_RDONLY if read_only else 0)
        with loop.attach(image, read_only=read_only) as device:
            mount.mount(device, place, "ext4", flags, "" if read_only else "discard")
        self.mounts.append(place)
        return place

    def umount(self, place: Path) -> None:
        mount.umount(place)
        copies.unmount(place)  # somebody's new mount namespace may have one
        self.mounts.remove(place)

    def clean_up(self) -> None:
        for place in list(self.mounts):
            with contextlib.suppress(OSError):
                mount.umount(place, mount.MNT_DETACH)
            copies.unmount(place)
        self.pool.close()


@pytest.fixture
def bench(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    bench = Bench(tmp_path)
    try:
        bench.pool.open()
    except MissingCapability as error:
        pytest.skip(f"needs what is missing here: {error.message}")
    yield bench
    bench.clean_up()
    assert not bench.pool.is_open


@pytest.fixture
def pool(bench):
    return bench.pool


def wait_for(condition, seconds=30.0):
    """Whether ``condition`` became true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
