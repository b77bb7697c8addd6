"""The pool: where disks, checkpoints and blanks live, and what is done to them.

Everything takes constant time. Every step can be repeated: recovery does so after a crash, and then
"it is there already" and "it is gone already" are no errors. What is under its final name is complete.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from spriggan import faults
from spriggan.disk import blank, repair
from spriggan.disk.repair import Repair
from spriggan.disk.replay import replay
from spriggan.disk.usage import Usage, allocated, host_space, slack
from spriggan.disk.volume import Volume
from spriggan.errors import AlreadyExists, InvalidRequest, InvalidValue, NotFound
from spriggan.linux import btrfs, filesystem

IMAGE = "disk.img"
LARGEST_GB = 16_000  # ext4 with 4 KiB blocks ends a little above

_NEXT = ".next"  # the disk that is about to be swapped in, afterwards the one that was swapped out
_DRAFT = ".draft-"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,127}")
_WORTH_TRIMMING = 64 << 20
_PATIENCE = 10.0  # seconds that a trim waits for deletions


class Pool:
    """The pool of one data directory. All methods block; those that write need ``open`` first."""

    def __init__(self, data: Path) -> None:
        self.image = data / "pool.img"
        self.root = data / "pool"
        self._volume = Volume(self.image, self.root)
        self._blanks_lock = threading.Lock()
        self._slack_kept = 0

    @property
    def is_open(self) -> bool:
        """Whether the pool is mounted."""
        return self._volume.is_mounted()

    def open(self) -> None:
        """Mount the pool, made first if there is none. Fine if it is mounted."""
        self._volume.mount()
        for name in ("blanks", "disks", "checkpoints", "trash"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Unmount the pool. Raises ``Conflict`` naming who holds it. Fine if it is not mounted."""
        self._volume.unmount()

    # Where things are.

    def disk_dir(self, sprite_id: str) -> Path:
        return self.root / "disks" / _checked(sprite_id)

    def disk_path(self, sprite_id: str) -> Path:
        """The ext4 image of a sprite."""
        return self.disk_dir(sprite_id) / IMAGE

    def checkpoints_dir(self, sprite_id: str) -> Path:
        return self.root / "checkpoints" / _checked(sprite_id)

    def checkpoint_dir(self, sprite_id: str, checkpoint: str) -> Path:
        return self.checkpoints_dir(sprite_id) / _checked(checkpoint)

    def subvolume_id(self, path: Path) -> int | None:
        """What tells a disk from the one that took its name; None if there is nothing."""
        try:
            return btrfs.subvolume_id(path)
        except FileNotFoundError:
            return None

    # Making them.

    def create_disk(self, sprite_id: str, size_gb: int) -> None:
        """Make an empty disk. Left alone if it exists."""
        if not 1 <= size_gb <= LARGEST_GB:
            raise InvalidValue(
                f"A disk of {size_gb} GB cannot be made", hint=f"1 to {LARGEST_GB} GB are possible."
            )
        self.clone_disk(self._blank(size_gb), sprite_id)

    def clone_disk(self, source_dir: Path, sprite_id: str) -> None:
        """Make a disk that is a clone of a checkpoint, or of a disk that nobody writes to.

        Left alone if it exists.
        """
        destination = self.disk_dir(sprite_id)
        if not destination.exists():
            _clone(source_dir, destination, read_only=False)

    def snapshot(
        self, sprite_id: str, destination: Path, mount_fd: int | None = None, *, read_only: bool = True
    ) -> None:
        """Make ``destination`` a clone of the sprite's disk; committed on return.

        If the disk is mounted, ``mount_fd`` must be a descriptor of a directory in it. Nobody is stopped:
        what was written before the call is in the clone; of what is written meanwhile, as much as after
        a power cut at one moment. A checkpoint is read-only, and its journal is replayed already; a fork
        (``disk_dir`` of the new sprite) is neither. Raises ``Broken`` if a checkpoint does not mount.
        """
        self._inside(destination)
        source = self.disk_dir(sprite_id)
        if not source.exists():
            raise NotFound(f"There is no disk of {sprite_id}")
        if destination.exists():
            raise AlreadyExists(f"{destination.relative_to(self.root)} exists in the pool")
        destination.parent.mkdir(mode=0o700, exist_ok=True)
        if mount_fd is None:
            _clone(source, destination, read_only=read_only)
            return
        filesystem.syncfs(mount_fd)
        draft = destination.with_name(_DRAFT + secrets.token_hex(4))
        try:
            btrfs.snapshot(source, draft, read_only=False)
            faults.point("snapshot:draft")
            if read_only:  # a fork's is replayed when it starts
                replay(draft / IMAGE, self.root)
                btrfs.set_read_only(draft, True)
            faults.point("snapshot:replayed")
            draft.rename(destination)
        except BaseException:
            self.delete(draft)
            raise
        faults.point("snapshot:named")
        btrfs.commit(destination.parent)

    def _blank(self, size_gb: int) -> Path:
        """Return the blank of a size, made when it is first asked for."""
        ready = self.root / "blanks" / str(size_gb)
        with self._blanks_lock:
            if not ready.exists():
                draft = ready.with_name(_DRAFT + ready.name)
                self.delete(draft)
                btrfs.create_subvolume(draft)
                faults.point("blank:subvolume")
                blank.make(draft / IMAGE, size_gb)
                faults.point("blank:formatted")
                btrfs.set_read_only(draft, True)
                draft.rename(ready)
                faults.point("blank:named")
        return ready

    # Restoring.

    def prepare_swap(self, sprite_id: str, checkpoint: str) -> int:
        """Lay a writable clone of a checkpoint beside the sprite's disk; return its subvolume id.

        Keep the id with the intent: after a crash, ``subvolume_id(disk_dir(…))`` equals it exactly if
        the swap took place.
        """
        source = self.checkpoint_dir(sprite_id, checkpoint)
        upcoming = self._next(sprite_id)
        self.retire(upcoming)
        _clone(source, upcoming, read_only=False)
        return btrfs.subvolume_id(upcoming)

    def swap(self, sprite_id: str) -> None:
        """Let the prepared disk and the sprite's disk change places, in one step; committed on return.

        The one swapped out stays, until ``finish_swap``: swapping again undoes it.
        """
        disk = self.disk_dir(sprite_id)
        btrfs.exchange(self._next(sprite_id), disk)
        faults.point("swap:exchanged")
        btrfs.commit(disk.parent)

    def finish_swap(self, sprite_id: str) -> None:
        """Retire the disk that was swapped out, or was never swapped in."""
        self.retire(self._next(sprite_id))

    def _next(self, sprite_id: str) -> Path:
        disk = self.disk_dir(sprite_id)
        return disk.with_name(disk.name + _NEXT)

    # Repairing.

    def repair(self, sprite_id: str) -> Repair:
        """Repair a disk that does not mount, unless that was tried since it last did.

        Raises ``Conflict`` if it is in use.
        """
        return repair.repair(self.disk_path(sprite_id))

    def mounted_well(self, sprite_id: str) -> None:
        """To be called when a disk was mounted: it may be repaired again when some day it is not."""
        repair.forget(self.disk_path(sprite_id))

    # Throwing away.

    def retire(self, path: Path) -> None:
        """Move a disk, a checkpoint, or all checkpoints of a sprite to the trash. Fine if it is gone.

        Quick and atomic; it may still be in use.
        """
        self._inside(path)
        try:
            if btrfs.is_subvolume(path):
                btrfs.set_read_only(path, False)  # else it may not move to another directory
                faults.point("retire:unsealed")
            path.rename(self.root / "trash" / secrets.token_hex(8))
        except FileNotFoundError:
            return

    def retire_sprite(self, sprite_id: str) -> None:
        """Retire all that belongs to a sprite."""
        self.retire(self.root / "checkpoints" / _checked(sprite_id))
        faults.point("retire:checkpoints")
        self.finish_swap(sprite_id)
        self.retire(self.disk_dir(sprite_id))

    def empty_trash(self) -> None:
        """Delete what was retired. The space is free some seconds later."""
        for entry in list((self.root / "trash").iterdir()):
            self.delete(entry)
            faults.point("trash:deleted")

    def delete(self, path: Path) -> None:
        """Delete a subvolume, or a directory of them, for good. Fine if it is gone."""
        self._inside(path)
        try:
            if btrfs.is_subvolume(path):
                btrfs.delete_subvolume(path)
                return
            for entry in list(path.iterdir()):
                self.delete(entry)
            path.rmdir()
        except FileNotFoundError:
            return

    # Recovery.

    def orphans(self, sprite_ids: Collection[str], checkpoints: Collection[tuple[str, str]]) -> list[Path]:
        """Return what lies in the pool and belongs to no known sprite or (sprite id, checkpoint id).

        Drafts and disks beside a sprite's own are among them: finish or undo swaps before.
        """
        known = {self.disk_dir(sprite_id) for sprite_id in sprite_ids}
        known |= {self.checkpoint_dir(*checkpoint) for checkpoint in checkpoints}
        strays = [path for path in sorted((self.root / "disks").iterdir()) if path not in known]
        for sprite in sorted((self.root / "checkpoints").iterdir()):
            inside = sorted(sprite.iterdir())
            if sprite.name not in sprite_ids and not any(path in known for path in inside):
                strays.append(sprite)
            else:
                strays += [path for path in inside if path not in known]
        drafts = [path for path in sorted((self.root / "blanks").iterdir()) if path.name.startswith(_DRAFT)]
        return strays + drafts

    # Space.

    def allocated(self) -> dict[str, int]:
        """Return the bytes that each sprite's disk takes."""
        return _sizes(self.root / "disks")

    def usage(self) -> Usage:
        host_total, host_free = host_space(self.image.parent)
        space = btrfs.space(self.root)
        return Usage(
            host_total=host_total,
            host_free=host_free,
            pool_size=space.size,
            pool_allocated=allocated(self.image),
            pool_used=space.data_used + space.metadata_used,
            metadata_free=space.metadata_free,
            disks=self.allocated(),
            checkpoints={path.name: _sizes(path) for path in (self.root / "checkpoints").iterdir()},
        )

    def trim(self, mount_fds: Iterable[int] = ()) -> int:
        """Give all free space back to the host, first that of mounted disks; return the bytes it got."""
        before = allocated(self.image)
        for fd in mount_fds:
            filesystem.syncfs(fd)  # what was deleted since the last commit is not free before the next
            _trim(fd)
        self._settle()
        self._trim_pool()
        return max(0, before - allocated(self.image))

    def reclaim(self) -> int:
        """Trim the pool if much could be given back; return the bytes. To be called every minute or so."""
        if not self._is_worth_trimming():
            return 0
        before = allocated(self.image)
        # Until it is committed, what was just written counts as unused, and what was freed is not free.
        btrfs.commit(self.root)
        if self._is_worth_trimming():
            self._trim_pool()
        return max(0, before - allocated(self.image))

    def _is_worth_trimming(self) -> bool:
        now = slack(self.image, self.root)
        self._slack_kept = min(self._slack_kept, now)
        return now - self._slack_kept >= _WORTH_TRIMMING

    def _settle(self) -> None:
        """Wait, not for ever, for what goes on in the background after files and subvolumes were deleted."""
        deadline = time.monotonic() + _PATIENCE
        size, before = sum(self.allocated().values()), None
        while (before is None or size < before) and time.monotonic() < deadline:
            time.sleep(0.1)  # ext4 passes discards on after its commit, and shrinks its image by that
            before, size = size, sum(self.allocated().values())
        btrfs.commit(self.root)
        while btrfs.deletions_pending(self.root) and time.monotonic() < deadline:
            time.sleep(0.2)
            btrfs.commit(self.root)
        btrfs.commit(self.root)

    def _trim_pool(self) -> None:
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _trim(root)
        finally:
            os.close(root)
        self._slack_kept = slack(self.image, self.root)

    def _inside(self, path: Path) -> None:
        parts = path.relative_to(self.root).parts if path.is_relative_to(self.root) else ()
        if len(parts) < 2 or ".." in parts:
            raise InvalidRequest(f"{path} is not a place in the pool")


def _checked(name: str) -> str:
    """Names become parts of paths: nothing but ids may pass."""
    if not _ID.fullmatch(name):
        raise InvalidRequest(f"{name!r} is not an id")
    return name


def _clone(source: Path, destination: Path, *, read_only: bool) -> None:
    if not source.exists():
        raise NotFound(f"There is no disk at {source}")
    btrfs.snapshot(source, destination, read_only=read_only)


def _sizes(directory: Path) -> dict[str, int]:
    """Return the allocated bytes of each image in ``directory``; drafts are passed over."""
    try:
        entries = [path for path in directory.iterdir() if _ID.fullmatch(path.name)]
    except FileNotFoundError:  # retired at this moment
        entries = []
    return {path.name: allocated(path / IMAGE) for path in entries}


def _trim(fd: int) -> None:
    try:
        filesystem.trim(fd)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise  # a file system below that cannot make holes gives nothing back
