"""A cell: namespaces in which a try can mount and start what it likes, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from spriggan.disk import holders
from spriggan.linux import namespaces, process
from spriggan.linux.mount import MNT_DETACH, MS_NODEV, MS_NOSUID, MS_REC, MS_SLAVE, mount, umount

_PLACES = ("/mnt", "/media", "/srv", "/home", "/opt")


def enter(data: Path) -> Path:
    """Go on in a child that is the first process of a cell; return the cell's scratch directory.

    The calling process only waits. SIGTERM makes it kill the child, and it ends when everything in
    the cell has ended, which the kernel sees to; with that all is unmounted and detached. If it is
    killed itself, the same happens a moment later. Raises ``OSError`` where namespaces cannot be made.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWIPC)
    mount("none", "/", flags=MS_REC | MS_SLAVE)  # an unmount on the host is not held up here
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if child := os.fork():
        signal.signal(signal.SIGTERM, lambda number, frame: os.kill(child, signal.SIGKILL))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        os.waitpid(child, 0)
        os._exit(0)
    process.die_with_parent()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    mount("proc", "/proc", "proc")
    programs = [Path(entry) for entry in os.environ.get("PATH", "").split(":")]
    here = [data, Path(sys.prefix), Path(sys.base_prefix), Path(__file__), *programs]
    needed = [path.resolve() for path in here]
    _let_go(needed)
    scratch = _place(needed)
    mount("doctor", scratch, "tmpfs", MS_NOSUID | MS_NODEV, "size=64m,mode=711")
    tempfile.tempdir = str(scratch)
    os.chdir("/")
    return scratch


def _let_go(needed: Iterable[Path]) -> None:
    """Drop the copies of mounted pools and disks that a new namespace starts with.

    Where the host's mounts are not shared, a copy would keep whoever unmounts one from being done.
    """
    mounts = holders.parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    for entry in reversed(mounts):
        if entry.source.startswith("/dev/loop") and not any(p.is_relative_to(entry.target) for p in needed):
            with contextlib.suppress(OSError):  # gone with one that was above it
                umount(entry.target, MNT_DETACH)


def _place(needed: Iterable[Path]) -> Path:
    """A directory that can be covered without hiding anything that is ``needed``."""
    for place in map(Path, _PLACES):
        if place.is_dir() and not any(path.is_relative_to(place.resolve()) for path in needed):
            return place
    raise OSError(f"none of {', '.join(_PLACES)} is a directory that is free to be covered")
