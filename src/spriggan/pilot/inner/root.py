"""The root of a sprite: read-only layers below, its disk on top, ids mapped for both.

Everything is mounted in a staging tree that looks the way the sprite's mount table will
show it, inside the pilot's private mount namespace: nothing appears on the host, and the
kernel undoes it when the last process of the namespace ends.
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from spriggan import faults
from spriggan.linux import loop, mapped
from spriggan.linux.mount import (
    MNT_DETACH,
    MOUNT_ATTR_IDMAP,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
    bind,
    mount,
    umount,
)
from spriggan.pilot.inner import kept
from spriggan.pilot.inner.identity import Identity, settle

# Where the three layers of our own images stand; the names are those of the system we follow.
LAYER_NAMES = ["mnt/languages-image", "system", "mnt/system-base"]
DISK = "mnt/user-data"
OWN_DISK = "mnt/own-disk"  # the disk once more, with its ids as they are: where the pilot itself writes
UNMOUNT_PATIENCE_S = 10.0
ROOT = "rootfs"
UPPER = f"{DISK}/root-upper/upper"
WORK = f"{DISK}/root-upper/work"


# How ext4 refuses what is no sound file system.
_DAMAGE = (errno.EUCLEAN, errno.EBADMSG, errno.EINVAL, errno.EIO)


class DiskDoesNotMount(OSError):
    """The file system on the disk is damaged; repairing it may help."""


@dataclass(frozen=True)
class Assembled:
    """A sprite's root, mounted."""

    root: Path
    disk: Path
    lost_host_keys: bool  # another sprite's host keys were removed; make new ones


def prepare(staging: Path) -> None:
    """Mount an empty tree at ``staging``. Once per pilot."""
    staging.mkdir(exist_ok=True)
    mount("spriggan", staging, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=711")


def assemble(
    staging: Path, *, layers: list[str], disk_image: str, first_id: int, userns: int, identity: Identity
) -> Assembled:
    """Mount disk, layers and the overlay over them below ``staging``.

    ``layers`` are mounted directories, topmost first; ``userns`` is the namespace whose map
    the mounts get. Raises ``DiskDoesNotMount``, or another ``OSError`` naming the step; what was
    mounted until then is undone.
    """
    try:
        disk = staging / DISK
        disk.mkdir(parents=True, exist_ok=True)
        _mount_disk(Path(disk_image), disk)
        faults.point("pilot:disk")
        kept.give(disk)
        lost_host_keys = settle(disk, identity)
        (staging / OWN_DISK).mkdir(exist_ok=True)
        own_disk = staging / OWN_DISK
        bind(disk, own_disk)
        mapped.show(disk, disk, userns, MOUNT_ATTR_IDMAP)
        names = layer_names(len(layers))
        for layer, name in zip(layers, names, strict=True):
            target = staging / name
            target.mkdir(parents=True, exist_ok=True)
            mapped.show(Path(layer), target, userns, MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY)
        (staging / ROOT).mkdir(exist_ok=True)
        options = f"lowerdir={':'.join(f'/{name}' for name in names)},upperdir=/{UPPER},workdir=/{WORK}"
        mapped.overlay(staging, ROOT, options, first_id)
        kept.keep(own_disk)
    except BaseException:
        dismantle(staging)
        raise
    return Assembled(staging / ROOT, disk, lost_host_keys)


def dismantle(staging: Path) -> None:
    """Unmount what ``assemble`` mounted. The disk's file system is flushed when this returns.

    Not lazily for the disk: a disk that somebody still holds must be an error here, not a
    surprise when it is swapped.
    """
    for name in (ROOT, *_mounted_layers(staging)):
        if os.path.ismount(staging / name):
            umount(staging / name, MNT_DETACH)
    deadline = time.monotonic() + UNMOUNT_PATIENCE_S
    for target in (staging / OWN_DISK, staging / DISK):
        while os.path.ismount(target):
            try:
                umount(target)
            except OSError as error:
                # Whoever flushed or froze it a moment ago may still hold a descriptor.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)


def _mount_disk(image: Path, target: Path) -> None:
    with loop.attach(image, hidden=True) as device:
        try:
            mount(device, target, "ext4", options="discard")
        except OSError as error:
            if error.errno not in _DAMAGE:
                raise
            raise DiskDoesNotMount(f"its disk does not mount ({os.strerror(error.errno)})") from error


def layer_names(count: int) -> list[str]:
    """Where ``count`` layers are mounted below the staging tree, topmost first."""
    if count == len(LAYER_NAMES):
        return LAYER_NAMES
    return [f"mnt/layer-{number}" for number in range(count, 0, -1)]


def _mounted_layers(staging: Path) -> list[str]:
    return [*LAYER_NAMES, *(f"mnt/{path.name}" for path in (staging / "mnt").glob("layer-*"))]
