"""Replay the journal in a snapshot of a disk in use.

Such a snapshot is what a power cut would have left. Who mounts it later may do so read-only, and sees all
that the journal says.
"""

from __future__ import annotations

import os
from pathlib import Path

from spriggan.errors import Broken
from spriggan.linux import loop, mount, namespaces

# ext4 would flush nine times, each time down to the host's disk. A snapshot whose replay is cut short is thrown
# away, so what counts is that all of it is on the disk in the end.
OPTIONS = "nobarrier"


def replay(image: Path, directory: Path) -> None:
    """Mount the ext4 in ``image`` once, over ``directory``, where nobody else sees it; on the disk on return.

    Nobody may rely on the image before. Raises ``Broken`` if it does not mount, ``OSError`` if it cannot be
    written out.
    """

    def run() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("none", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        # Not direct: ext4 reads the journal block by block, and it holds what was written since its start
        # was last moved: up to a quarter of its size, however little is new.
        with loop.attach(image, direct_io=False, hidden=True) as device:
            mount.mount(device, directory, "ext4", mount.MS_NOATIME, OPTIONS)
            mount.umount(directory)

    try:
        namespaces.in_thread(run)
    except OSError as error:
        raise Broken(
            f"The snapshot's file system does not mount: {error}",
            hint="the disk is damaged; 'dmesg' on the host says more",
        ) from error
    _write_out(image)


def _write_out(image: Path) -> None:
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # nobody reads it this way again
    finally:
        os.close(fd)
