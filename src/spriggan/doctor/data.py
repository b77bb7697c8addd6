"""The file system of the data directory: what it can do, and how much room there is."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import IO

from spriggan.disk import holders, volume
from spriggan.disk.guard import default_reserve, gib
from spriggan.disk.usage import host_space
from spriggan.doctor.check import Place, existing
from spriggan.doctor.finding import Finding, limited, missing
from spriggan.linux import loop

_NEW_POOL = 64 << 20  # more than an empty pool, its records and a first disk take
_IN_MEMORY = ("tmpfs", "ramfs", "rootfs")
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs", "virtiofs")


def unnamed_file(place: Place) -> IO[bytes]:
    """A file where the data directory is or will be, without a name: it is gone with its last descriptor.

    In memory, if there can be none: ``file_system`` and ``space`` tell why.
    """
    try:
        return tempfile.TemporaryFile(dir=existing(place.data))
    except OSError:
        return tempfile.TemporaryFile(dir=place.scratch)


def space(place: Place) -> Finding | str:
    """Room for a pool, and for what it grows by."""
    directory = existing(place.data)
    total, free = host_space(directory)
    reserve = default_reserve(total)
    seen = f"{gib(free)} free of {gib(total)} on the {_kind(directory)} of {directory}"
    fix = f"free space there, or choose another place with --data; 'df -h {directory}' shows it"
    if free < _NEW_POOL and not _has_pool(place):
        return missing(seen, costs="not even an empty pool can be made", fix=fix)
    if free < reserve:
        return limited(
            f"{seen}, which is less than the reserve of {gib(reserve)}",
            costs="nothing can be created, forked or checkpointed, and sprites that write may be paused",
            fix=fix,
        )
    return f"{seen}; {gib(reserve)} are kept in reserve"


def file_system(place: Place) -> Finding | str:
    """A sparse file as large as a pool, on a disk of this machine."""
    directory = existing(place.data)
    kind, size = _kind(directory), volume.size_for(directory)
    elsewhere = "choose a directory on an ext4, XFS or btrfs disk with --data"
    if not _has_pool(place):
        try:
            with tempfile.TemporaryFile(dir=directory) as file:
                file.truncate(size)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return missing(
                f"the {kind} of {directory} holds no file of {gib(size)}",
                costs="no pool can be made",
                fix=elsewhere,
            )
    if kind in _IN_MEMORY:
        return limited(
            f"{directory} is in memory ({kind})", costs="all sprites are gone after a reboot", fix=elsewhere
        )
    if kind in _REMOTE:
        return limited(
            f"{directory} is on another machine ({kind})",
            costs="disks are slow, and what is acknowledged depends on that machine",
            fix=elsewhere,
        )
    return f"{kind} at {directory}, {'with a pool' if _has_pool(place) else f'with files of {gib(size)}'}"


def loops(place: Place) -> Finding | str:
    """A loop device on a file of the data directory's file system, without a second cache."""
    directory = existing(place.data)
    with unnamed_file(place) as file:
        file.truncate(16 << 20)
        with loop.attach(f"/proc/self/fd/{file.fileno()}") as device:
            shown = next(found for found in loop.attached() if found.path == device)
    if not shown.direct_io:
        return limited(
            f"works, but not with direct I/O on the {_kind(directory)} of {directory}",
            costs="what sprites read and write is cached twice, in the pool and below it",
            fix="choose a directory on an ext4, XFS or btrfs disk with --data",
        )
    return f"with direct I/O on the {_kind(directory)} of {directory}"


def _has_pool(place: Place) -> bool:
    """Whether there is one already; then nothing new is needed, and what is in it can be used."""
    return (place.data / "pool.img").exists()


def _kind(directory: Path) -> str:
    """The type of the file system that ``directory`` lies on."""
    mounts = holders.parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    above = [mount for mount in mounts if directory.resolve().is_relative_to(mount.target)]
    if not above:  # in a chroot, whose root is nobody's mount
        return "file system"
    return max(reversed(above), key=lambda mount: len(mount.target)).fstype  # of several, the topmost
