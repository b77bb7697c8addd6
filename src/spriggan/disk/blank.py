"""A blank disk: a formatted ext4 image that every new disk of its size is a clone of."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from spriggan.errors import Broken, MissingCapability
from spriggan.linux import btrfs

# What a sprite's writable file system holds, and with which mode.
TREE = {
    "root-upper": 0o755,
    "root-upper/upper": 0o755,
    "root-upper/work": 0o755,
    "tmp": 0o1777,
    "docker": 0o711,
    "containers": 0o711,
    "logs": 0o755,
    "sprite": 0o700,
}

# Named in full, so that a disk is the same whatever the host's mke2fs.conf says and older kernels mount it.
FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)


def make(image: Path, size_gb: int) -> None:
    """Make the image. It is sparse: what ext4 has not written takes no space."""
    fd = os.open(image, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        btrfs.set_nocow(fd)
        os.ftruncate(fd, size_gb << 30)
        with tempfile.TemporaryDirectory(prefix="spriggan-blank-") as tree:
            _plant(Path(tree))
            _format(image, tree)
        os.fsync(fd)
    finally:
        os.close(fd)


def _plant(root: Path) -> None:
    root.chmod(0o755)
    for name, mode in TREE.items():
        (root / name).mkdir()
        (root / name).chmod(mode)


def _format(image: Path, tree: str) -> None:
    # No blocks reserved for root: the sprite's root is the user. A small journal, not written
    # beforehand: it would be a hidden cost of every sprite.
    command = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES]
    command += ["-J", "size=64", "-E", "root_owner=0:0,lazy_journal_init=1", "-d", tree, os.fspath(image)]
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise MissingCapability(
            "mkfs.ext4 is not installed", hint="Run `spriggan setup`, or: apt-get install e2fsprogs"
        ) from error
    except subprocess.CalledProcessError as error:
        raise Broken(f"mkfs.ext4 failed: {error.stderr.decode(errors='replace').strip()}") from error
