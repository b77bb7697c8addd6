"""The volume under a pool: a btrfs file system in a sparse file, mounted through a loop device."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spriggan import faults
from spriggan.disk import holders
from spriggan.errors import Broken, Conflict, MissingCapability
from spriggan.linux import btrfs, copies, loop, mount

SMALLEST = 16 << 30
LARGEST = 15 << 40  # ext4 below holds no file of 16 TiB

# nodatacow: images are overwritten in place, which is four times as fast (a snapshot still gets its own
# copy, once per block). discard=async frees deleted data on the host some 150 s later even while no
# server runs; a server is quicker (Pool.reclaim). discard=sync would do that inside the commits that
# everybody's fsync waits for.
OPTIONS = "nodatacow,discard=async"

_PATIENCE = 3.0


class Volume:
    """``image`` as a btrfs file system at ``root``."""

    def __init__(self, image: Path, root: Path) -> None:
        self.image = image
        self.root = root

    def is_mounted(self) -> bool:
        """Whether the volume is mounted at its place. Raises ``Conflict`` if something else is."""
        entry = holders.mounted_at(self.root)
        if entry is None:
            return False
        if entry.fstype == "btrfs" and entry.source in loop.find(self.image):
            return True
        raise Conflict(
            f"Something else is mounted at {self.root}: {entry.source} ({entry.fstype})",
            hint=f"Unmount it: umount {self.root}",
        )

    def mount(self) -> None:
        """Make the volume if there is none, and mount it; nothing to do if an earlier server did."""
        if self.is_mounted():
            return
        if not self.image.exists():
            make(self.image)
        faults.point("volume:made")
        self.root.mkdir(mode=0o700, exist_ok=True)
        with self._device() as device:
            try:
                mount.mount(device, self.root, "btrfs", mount.MS_NOATIME, OPTIONS)
            except OSError as error:
                raise _explain(error, self.image) from error
        faults.point("volume:mounted")
        self._let_discards_run()

    def unmount(self) -> None:
        """Unmount, and return when the file is free. Raises ``Conflict`` naming who holds it."""
        deadline = time.monotonic() + _PATIENCE
        while self.is_mounted() or loop.find(self.image):
            try:
                if self.is_mounted():
                    mount.umount(self.root)
                    continue
                copies.unmount(self.root)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            if time.monotonic() > deadline:
                who = holders.of(self.root, loop.find(self.image))
                raise Conflict(
                    f"The pool is still in use by {', '.join(who) or 'a process that cannot be seen'}",
                    hint="Stop the sprites (`spriggan stop --all`), end the programs named, then try again.",
                )
            time.sleep(0.05)

    @contextmanager
    def _device(self) -> Iterator[str]:
        """Yield a loop device of the image, never a second one: two would be two file systems in one file.

        After a server's end the file system may live on in the mount namespaces of running sprites.
        """
        for path in loop.find(self.image):
            with contextlib.suppress(FileNotFoundError):
                device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if path in loop.find(self.image):  # held open it can no longer be detached
                        yield path
                        return
                finally:
                    os.close(device)
        try:
            with loop.attach(self.image, hidden=True) as path:
                yield path
        except FileNotFoundError as error:
            if error.filename != "/dev/loop-control":
                raise
            raise MissingCapability(
                "This kernel has no loop devices", hint="Load the module: modprobe loop"
            ) from error

    def _let_discards_run(self) -> None:
        """Lift the kernel's limits on discards: here they are holes in a file, not work for a disk."""
        for directory in Path("/sys/fs/btrfs").glob("*/discard"):
            devices = {entry.name for entry in (directory.parent / "devices").iterdir()}
            if devices & {Path(device).name for device in loop.find(self.image)}:
                for knob in ("iops_limit", "kbps_limit"):
                    with contextlib.suppress(OSError):  # older kernels have fewer
                        (directory / knob).write_text("0")


def make(image: Path) -> None:
    """Make a formatted image, as large as the file system it lies on; under its name only when complete."""
    draft = image.with_name(image.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        btrfs.set_nocow(fd)  # matters only if the host's file system is btrfs itself
        os.ftruncate(fd, size_for(image.parent))
        _format(draft)
        os.fsync(fd)
        faults.point("volume:formatted")
        draft.rename(image)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    directory = os.open(image.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def size_for(directory: Path) -> int:
    """How large a volume in ``directory`` is made. It is sparse: the host's size is the only limit."""
    host = os.statvfs(directory)
    size = min(max(host.f_blocks * host.f_frsize, SMALLEST), LARGEST)
    return size & ~((1 << 20) - 1)


def _format(image: Path) -> None:
    # Metadata once, not twice: DUP makes writes four times slower, and both copies would lie in one file.
    command = ["mkfs.btrfs", "-q", "-K", "-m", "single", "-d", "single", os.fspath(image)]
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise MissingCapability(
            "mkfs.btrfs is not installed", hint="Run `spriggan setup`, or: apt-get install btrfs-progs"
        ) from error
    except subprocess.CalledProcessError as error:
        raise Broken(f"mkfs.btrfs failed: {error.stderr.decode(errors='replace').strip()}") from error


def _explain(error: OSError, image: Path) -> Exception:
    if error.errno == errno.ENODEV:
        return MissingCapability(
            "This kernel has no btrfs",
            hint="Load the module (modprobe btrfs); cloud kernels have it in a package of extra modules.",
        )
    if error.errno == errno.EPERM:
        return MissingCapability("Mounting is not permitted here", hint="Run the server as root.")
    return Broken(
        f"The pool does not mount: {error}",
        hint=f"See what the kernel says (dmesg), and check it with: btrfs check --readonly {image}",
    )
