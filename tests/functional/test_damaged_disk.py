"""A disk that does not mount is repaired once; one that cannot be repaired says so and harms nobody."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import serving

BLOCK = 4096
INODE = 256

# Stands in for e2fsck in the server's PATH: counts, has the device for itself for a while, and goes on
# as the real one.
WRAPPER = """\
#!{python}
import os, sys, time
open({calls!r}, "a").write("called\\n")
fd = os.open(sys.argv[-1], os.O_RDWR | os.O_EXCL)
while os.path.exists({hold!r}):
    time.sleep(0.01)
os.close(fd)
os.execv({real!r}, sys.argv)
"""


class Bench:
    """A server of its own, whose calls of e2fsck are counted."""

    def __init__(self, own: serving.Server, directory: Path) -> None:
        self.own = own
        self.calls = directory / "calls"
        self.hold = directory / "hold"  # while it is there, e2fsck waits
        self._bin = directory / "bin"
        self._bin.mkdir()
        real = shutil.which("e2fsck")
        assert real
        wrapper = self._bin / "e2fsck"
        wrapper.write_text(
            WRAPPER.format(
                python=serving.sys.executable, calls=str(self.calls), hold=str(self.hold), real=real
            )
        )
        wrapper.chmod(0o755)

    def start(self) -> None:
        self.own.start(PATH=f"{self._bin}:{os.environ['PATH']}")

    @property
    def count(self) -> int:
        return self.calls.read_text().count("called") if self.calls.exists() else 0

    def info(self, name: str) -> dict[str, Any]:
        with self.own.http() as http:
            found: dict[str, Any] = http.get(f"/v1/sprites/{name}").json()
        return found

    def disk(self, name: str) -> Path:
        return self.own.data / "pool" / "disks" / self.info(name)["id"] / "disk.img"

    def stop(self, name: str) -> None:
        done = self.own.cli("stop", name)
        assert done.returncode == 0, done.stderr
        assert self.info(name)["status"] == "cold"

    def exec(self, name: str, command: str) -> Any:
        """Run a command by POST; the answer, whatever it is."""
        with self.own.http() as http:
            return http.post(
                f"/v1/sprites/{name}/exec", params=[("cmd", "sh"), ("cmd", "-c"), ("cmd", command)]
            )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with serving.server() as own:
        found = Bench(own, tmp_path)
        found.start()
        try:
            yield found
        finally:
            found.hold.unlink(missing_ok=True)


def wrong_checksum(image: Path) -> None:
    """Of the first group's descriptor. ext4 refuses to mount; e2fsck -p mends it."""
    _write(image, BLOCK + 0x1E, b"xx")


def no_journal(image: Path) -> None:
    """The journal's inode is gone. e2fsck -p makes a new journal."""
    _write(image, _inode_table(image) + 7 * INODE, bytes(INODE))


def no_root_directory(image: Path) -> None:
    """The root's inode is gone, which e2fsck -p leaves to people."""
    _write(image, _inode_table(image) + 1 * INODE, bytes(INODE))


def no_superblock(image: Path) -> None:
    """Nothing says that this is ext4."""
    _write(image, 1024, bytes(1024))


@pytest.mark.parametrize("damage", [wrong_checksum, no_journal])
def test_a_disk_that_does_not_mount_is_repaired_and_the_sprite_runs(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    sprite = bench.own.client().create_sprite("dev")
    serving.run(sprite, "seq 100000 >kept && sync")
    wanted = serving.run(sprite, "sha256sum kept")
    for times in (1, 2):  # it mounted in between, so it may be repaired again
        bench.stop("dev")
        damage(bench.disk("dev"))
        assert serving.run(sprite, "sha256sum kept") == wanted
        assert bench.count == times
        found = bench.info("dev")
        assert found["status"] == "running"
        assert "its disk did not mount and was repaired by e2fsck" in found["last_error"]
        assert re.search("FIXED|journal has been regenerated", found["last_error"])
    log = bench.own.log.read_text()
    assert log.count("e2fsck -p:") == 2
    # The next start without trouble is not marked.
    bench.stop("dev")
    serving.run(sprite, "true")
    assert bench.info("dev")["last_error"] is None
    assert bench.count == 2
    assert sorted(path.name for path in bench.disk("dev").parent.iterdir()) == ["disk.img"]


@pytest.mark.parametrize("damage", [no_root_directory, no_superblock])
def test_a_disk_beyond_repair_is_tried_once_and_a_checkpoint_brings_it_back(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    client = bench.own.client()
    sprite, other = client.create_sprite("dev"), client.create_sprite("other")
    serving.run(sprite, "echo good >kept && sync")
    serving.finished(sprite.create_checkpoint("good"))
    bench.stop("dev")
    damage(bench.disk("dev"))

    refused = bench.exec("dev", "true")
    assert refused.status_code == 500, refused.text
    assert refused.json()["code"] == "damaged_disk"
    assert "the disk of dev does not mount, and e2fsck -p could not repair it" in refused.json()["message"]
    assert "spriggan checkpoint restore -s dev" in refused.json()["hint"]
    assert bench.count == 1
    found = bench.info("dev")
    assert found["status"] == "cold"
    assert found["last_error"] == refused.json()["message"]

    before = _digest(bench.disk("dev"))
    for _ in range(2):
        again = bench.exec("dev", "true")
        assert again.status_code == 500
        assert "(tried before, and not again)" in again.json()["message"]
    bench.own.stop()  # a new server knows it, too
    bench.start()
    assert "(tried before, and not again)" in bench.exec("dev", "true").json()["message"]
    assert bench.count == 1
    assert _digest(bench.disk("dev")) == before
    assert serving.run(other, "echo well") == "well"

    restored = bench.own.cli("checkpoint", "restore", "-s", "dev", "v1")
    assert restored.returncode == 0, restored.stderr
    assert serving.run(sprite, "cat kept") == "good"
    assert bench.info("dev")["last_error"] is None
    # The restored disk is another one: it would be repaired again.
    bench.stop("dev")
    wrong_checksum(bench.disk("dev"))
    assert serving.run(sprite, "cat kept") == "good"
    assert bench.count == 2


def test_a_repair_outlives_the_server_and_nobody_mounts_the_disk_meanwhile(bench: Bench) -> None:
    sprite = bench.own.client().create_sprite("dev")
    serving.run(sprite, "echo good >kept && sync")
    bench.stop("dev")
    wrong_checksum(bench.disk("dev"))
    bench.hold.touch()
    asking = subprocess.Popen(
        [serving.SPRIGGAN, "exec", "-s", "dev", "--", "true"],
        env={**os.environ, "SPRITES_API_URL": bench.own.url, "SPRITE_TOKEN": bench.own.token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _until(lambda: bench.count == 1)
        bench.own.kill()
        bench.start()
        busy = bench.exec("dev", "true")
        assert busy.status_code == 503, busy.text
        assert "still in use" in busy.json()["message"]
        bench.hold.unlink()
        _until(lambda: bench.exec("dev", "true").status_code != 503)
        assert serving.run(sprite, "cat kept") == "good"
    finally:
        bench.hold.unlink(missing_ok=True)
        asking.send_signal(signal.SIGKILL)
        asking.wait()


def _write(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _inode_table(image: Path) -> int:
    """Where the first group's inodes are, in bytes."""
    shown = subprocess.run(
        ["dumpe2fs", image], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
    )
    found = re.search(r"Inode table at (\d+)", shown.stdout)
    assert found
    return int(found[1]) * BLOCK


def _digest(image: Path) -> str:
    """Of the first 64 MiB, where a repair would write, but not of the superblock: in that the kernel notes
    that it could not mount.
    """
    with image.open("rb") as file:
        file.seek(BLOCK)
        return hashlib.sha256(file.read(64 << 20)).hexdigest()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
