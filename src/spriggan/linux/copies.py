"""Copies of a mount in other mount namespaces.

A new mount namespace starts with a copy of every mount. Where the host's mounts are not shared (no
systemd), an unmount does not reach those copies: any service with a namespace of its own keeps the
file system, and the loop device below it, in use for as long as it runs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from spriggan.linux import namespaces, process
from spriggan.linux.mount import MNT_DETACH, umount, unescape


def unmount(*targets: str | Path) -> None:
    """Unmount, in every other mount namespace, what is mounted exactly at one of ``targets``.

    Other mounts of those namespaces are left alone. What cannot be reached is left, too.
    """
    wanted = {os.path.realpath(target) for target in targets}
    for pid, points in _with_copies(wanted):
        with contextlib.suppress(OSError):
            _unmount_in(pid, points)


def _with_copies(wanted: set[str]) -> Iterator[tuple[int, list[str]]]:
    """One process of each namespace that has copies, and where they are, the last one mounted first."""
    seen = {Path("/proc/self/ns/mnt").readlink()}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            namespace = (entry / "ns" / "mnt").readlink()
            if namespace not in seen:
                seen.add(namespace)
                if points := [point for point in _points(entry / "mountinfo") if point in wanted]:
                    yield int(entry.name), points[::-1]


def _points(mountinfo: Path) -> list[str]:
    lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    return [unescape(line.split(" ", 5)[4]) for line in lines]


def _unmount_in(pid: int, points: list[str]) -> None:
    namespace = namespaces.open_namespace(pid, "mnt")

    def work() -> None:
        namespaces.setns(namespace, namespaces.CLONE_NEWNS)
        for point in points:
            umount(point, MNT_DETACH)

    try:
        process.in_child(work)
    finally:
        os.close(namespace)
