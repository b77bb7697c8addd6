"""Replay the journal in a snapshot of a disk in use.

Such a snapshot is what a power cut would have left. Who mounts it later may do so read-only, and sees all
that the journal says.
"""

from __future__ import annotations

from pathlib import Path

from spriggan.errors import Broken
from spriggan.linux import loop, mount, namespaces


def replay(image: Path, directory: Path) -> None:
    """Mount the ext4 in ``image`` once, over ``directory``, where nobody else sees it.

    Raises ``Broken`` if it does not mount.
    """

    def run() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("none", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        with loop.attach(image, hidden=True) as device:
            mount.mount(device, directory, "ext4", mount.MS_NOATIME)
            mount.umount(directory)

    try:
        namespaces.in_thread(run)
    except OSError as error:
        raise Broken(
            f"The snapshot's file system does not mount: {error}",
            hint="the disk is damaged; 'dmesg' on the host says more",
        ) from error
