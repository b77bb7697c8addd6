"""Thaw a file system that is mounted where we cannot see it: through its block device."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from spriggan.linux import freeze, mount, namespaces


def thaw_device(device: str, directory: Path) -> bool:
    """Thaw the ext4 on ``device``; whether it was frozen.

    Mounting a device that is mounted elsewhere gives the same file system. That happens in a mount
    namespace that ends with the thread, over ``directory``, which nobody else sees.
    """

    def run() -> bool:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount.mount("none", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
        try:
            mount.mount(device, directory, "ext4", mount.MS_NOATIME)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False  # a program has it for itself (e2fsck does), so it is not mounted at all
            raise
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return freeze.thaw(fd)
        finally:
            os.close(fd)

    return namespaces.in_thread(run)
