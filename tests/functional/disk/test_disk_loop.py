"""Loop devices come, are found, and go by themselves."""

import os
import subprocess
import sys
import threading

import pytest

from conftest import wait_for
from spriggan.linux import loop


@pytest.fixture
def image(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path / "image"
    path.write_bytes(b"front" + bytes((1 << 20) - 5))
    yield path
    for device in loop.find(path):
        loop.detach(device)


def test_attach_shows_the_file_and_leaves_nothing(image, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(image)
    with loop.attach(image) as device:
        assert loop.find(image) == loop.find(link) == [device]
        fd = os.open(device, os.O_RDWR)
        assert os.read(fd, 5) == b"front"
        os.pwrite(fd, bytes(4096), 0)
        os.fsync(fd)
        os.close(fd)
    assert wait_for(lambda: loop.find(image) == [])
    assert image.read_bytes()[:5] == bytes(5)


def test_read_only(image):
    with loop.attach(image, read_only=True) as device:
        [found] = [one for one in loop.attached() if one.path == device]
        assert found.read_only
        fd = os.open(device, os.O_RDONLY)
        os.close(fd)
        with pytest.raises(PermissionError):
            os.write(os.open(device, os.O_RDWR), bytes(4096))


def test_odd_sizes(tmp_path, image):
    image.write_bytes(b"x" * 5120)
    with loop.attach(image, read_only=True) as device:
        fd = os.open(device, os.O_RDONLY)
        assert os.lseek(fd, 0, os.SEEK_END) == 5120
        os.close(fd)


def test_errors_name_the_file(tmp_path, image):
    with pytest.raises(FileNotFoundError, match="missing"), loop.attach(tmp_path / "missing"):
        pass
    assert loop.find(tmp_path / "missing") == []


def test_detach_of_what_is_not_there(image):
    loop.detach("/dev/loop65000")
    with loop.attach(image) as device:
        pass
    loop.detach(device)


def test_many_at_once_get_one_each(tmp_path, image):
    images = [tmp_path / f"image{number}" for number in range(24)]
    for path in images:
        path.write_bytes(bytes(8192))
    devices, barrier = [], threading.Barrier(len(images))

    def run(path):
        barrier.wait()
        with loop.attach(path) as device:
            assert loop.find(path) == [device]
            devices.append(device)
            barrier.wait()

    threads = [threading.Thread(target=run, args=(path,)) for path in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(devices)) == len(images)
    assert wait_for(lambda: not any(loop.find(path) for path in images))


BARE_DEV = """
import os, stat, sys
from spriggan.linux import loop, mount, namespaces
namespaces.unshare(namespaces.CLONE_NEWNS)
mount.mount("none", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
mount.mount("tmpfs", "/dev", "tmpfs")
os.mknod("/dev/loop-control", stat.S_IFCHR | 0o600, os.makedev(10, 237))
with loop.attach(sys.argv[1]) as device:
    print(open(device, "rb").read(5).decode())
"""


def test_nodes_are_made_where_dev_has_none(image):
    command = [sys.executable, "-c", BARE_DEV, image]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "front\n"
