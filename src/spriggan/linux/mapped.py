"""Mounts with mapped ids, and an overlay over them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from spriggan.linux import capabilities, libc, namespaces
from spriggan.linux.mount import MNT_DETACH, mount, move_mount, open_tree, set_attributes, umount


def show(source: Path, target: Path, userns: int, attributes: int) -> None:
    """Show ``source`` at ``target`` with the ``MOUNT_ATTR_*`` given and the ids of ``userns``.

    Replaces a mount at ``target`` itself.
    """
    tree = open_tree(source)
    try:
        set_attributes(tree, add=attributes, userns=userns)
        if source == target:
            umount(target, MNT_DETACH)
        move_mount(tree, target)
    finally:
        os.close(tree)


def overlay(staging: Path, target: str, options: str, first_id: int, flags: int = 0) -> None:
    """Mount an overlay at ``target`` from a thread that is chrooted to ``staging``.

    All paths are below ``staging``. Chrooted, so that the mount table shows the options without a
    path of the host. The overlay keeps the credentials of whoever mounts it for all its work on the
    disk, and as the mounts below are id mapped these must be an id that is mapped (``first_id``),
    with the capabilities that setfsuid(2) takes: otherwise it turns read-only without a word. For the
    kernel all of that belongs to a thread, and this one ends with it.
    """

    def work() -> None:
        namespaces.unshare(namespaces.CLONE_FS)
        os.chroot(staging)
        os.chdir("/")
        mount("overlay", f"/{target}", "overlay", flags, options)

    as_root(first_id, work)


def as_root(first_id: int, work: Callable[[], None]) -> None:
    """Do ``work`` in a thread that is the sprite's root, ``first_id``, to file systems, with all of root's powers.

    The host's root is nobody there: what it makes would have an id that is not mapped.
    """

    def become() -> None:
        _set_id("setfsgid", first_id)
        _set_id("setfsuid", first_id)
        capabilities.raise_permitted()
        work()

    namespaces.in_thread(become)


def _set_id(name: str, number: int) -> None:
    """setfsuid(2) or setfsgid(2), which report no error: ask again to see that it took."""
    libc.call(name, ctypes.c_uint(number), what=name)
    if libc.call(name, ctypes.c_uint(number), what=name) != number:
        raise OSError(f"{name}({number}) had no effect")
