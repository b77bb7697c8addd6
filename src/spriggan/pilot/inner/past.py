"""Checkpoints as file trees inside the sprite: its whole root as it was, read-only.

Mounted in the pilot's namespace, then moved into the container's as one mount: when that is
unmounted, or the container ends, disk image and loop device go with it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from spriggan.linux import loop, mapped, namespaces, process
from spriggan.linux.mount import (
    MNT_DETACH,
    MNT_EXPIRE,
    MOUNT_ATTR_IDMAP,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    mount,
    mount_points,
    move_mount,
    open_tree,
    umount,
)
from spriggan.pilot.inner import root

DIRECTORY = "/.sprite/checkpoints"
_DISK = "past/disk"
_ROOT = "past/root"


def show(
    staging: Path, image: Path, name: str, *, layers: int, first_id: int, userns: int, init_pid: int
) -> None:
    """Mount the checkpoint in ``image`` at ``DIRECTORY/name`` in the container of ``init_pid``.

    ``layers`` is the number of those that are mounted in ``staging``. The directory must exist.
    Raises ``OSError`` naming the step.
    """
    for part in (_DISK, _ROOT):
        (staging / part).mkdir(parents=True, exist_ok=True)
    try:
        with loop.attach(image, read_only=True) as device:
            # Its journal was replayed when it was taken.
            mount(device, staging / _DISK, "ext4", MS_RDONLY | MS_NOSUID | MS_NODEV, "noload")
        mapped.show(staging / _DISK, staging / _DISK, userns, MOUNT_ATTR_IDMAP)
        lower = ":".join(f"/{part}" for part in (f"{_DISK}/root-upper/upper", *root.layer_names(layers)))
        flags = MS_RDONLY | MS_NOSUID | MS_NODEV
        mapped.overlay(staging, _ROOT, f"lowerdir={lower}", first_id, flags)
        tree = open_tree(staging / _ROOT)
    finally:
        for part in (_ROOT, _DISK):
            if os.path.ismount(staging / part):
                umount(staging / part, MNT_DETACH)
    try:
        _inside(init_pid, lambda: move_mount(tree, f"{DIRECTORY}/{name}"))
    finally:
        os.close(tree)


def shown(init_pid: int) -> list[str]:
    """The checkpoints that are mounted in the container of ``init_pid``."""
    prefix = f"{DIRECTORY}/"
    try:
        targets = mount_points(init_pid)
    except OSError:
        return []
    return sorted(target.removeprefix(prefix) for target in targets if target.startswith(prefix))


def drop(name: str, init_pid: int, *, unused: bool) -> bool:
    """Unmount a checkpoint; with ``unused`` only if nobody has looked at it since the last such call.

    Returns whether it is gone.
    """
    try:
        _inside(init_pid, lambda: umount(f"{DIRECTORY}/{name}", MNT_EXPIRE if unused else MNT_DETACH))
    except OSError as error:
        return error.errno in (errno.EINVAL, errno.ENOENT)  # somebody inside was quicker
    return True


def _inside(init_pid: int, work: Callable[[], None]) -> None:
    """Do ``work`` in the container's mount namespace."""
    namespace = namespaces.open_namespace(init_pid, "mnt")

    def join() -> None:
        namespaces.setns(namespace, namespaces.CLONE_NEWNS)
        work()

    try:
        process.in_child(join)
    finally:
        os.close(namespace)
