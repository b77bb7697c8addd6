"""Write the entries that may come in to a directory of the host, without following any link.

Every directory is opened by ``openat2`` from the layer's own root, with links and other file systems
forbidden to the kernel itself; files are made, never opened for writing. So even an entry that was
wrongly let in cannot reach anything outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as HostPath

from spriggan.errors import InvalidValue
from spriggan.image.importing import tree
from spriggan.image.importing.admission import Change
from spriggan.image.importing.limits import Room
from spriggan.image.importing.tar import shown
from spriggan.image.importing.tree import Node, Path, Type
from spriggan.linux.paths import open_strictly

_OPAQUE = "trusted.overlay.opaque"
_KEPT_OPEN = 64  # directories
_CANNOT_HOLD = (errno.ENOTSUP, errno.E2BIG, errno.ERANGE, errno.ENOSPC)


class Planter:
    """Writes one layer to the empty directory ``root``. Use it as a context manager."""

    def __init__(self, root: HostPath, room: Room) -> None:
        self._root_path = root
        self._room = room
        self._root = -1
        self._open: OrderedDict[Path, int] = OrderedDict()
        self.bytes = 0

    def __enter__(self) -> Planter:
        self._root = os.open(self._root_path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._open.values(), self._root):
            os.close(fd)
        self._open.clear()

    def plant(self, change: Change, content: Iterable[bytes]) -> None:
        """Write one entry. Directories get their owner, mode and time only in ``finish``."""
        node, name = change.node, change.path[-1]
        if node.is_directory:
            self._directory(change.path)
            return
        parent = self._directory(change.path[:-1])
        if change.replaces:
            os.unlink(name, dir_fd=parent)
        if change.source is not None:
            self._link(change, parent)
        elif node.type is Type.FILE:
            self._file(change, parent, content)
        elif node.type is Type.SYMLINK:
            os.symlink(node.target, name, dir_fd=parent)
            os.chown(name, node.uid, node.gid, dir_fd=parent, follow_symlinks=False)
            _set_time(name, node, parent)
        else:
            os.mkfifo(name, 0o600, dir_fd=parent)
            with _opened(parent, name, os.O_PATH) as fd:
                os.chown(f"/proc/self/fd/{fd}", node.uid, node.gid)
                HostPath(f"/proc/self/fd/{fd}").chmod(node.mode)
            _set_time(name, node, parent)

    def finish(self, layer: Node, below: Node | None) -> None:
        """Write what only the whole layer tells: deletions, and what directories are like."""
        directories = []
        for path, node, under in tree.walk(layer, below):
            if node.is_directory:
                self._directory(path)
                directories.append((path, node))
            elif node.hides and under is not None:
                parent = self._directory(path[:-1])
                os.mknod(path[-1], stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
                _set_time(path[-1], node, parent)
        # Children first: each changes the time of the directory that it is in.
        for path, node in reversed(directories):
            with self._directory_to_change(path) as fd:
                self._describe(fd, path, node)
                if node.opaque:
                    os.setxattr(fd, _OPAQUE, b"y")
                os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))

    def _file(self, change: Change, parent: int, content: Iterable[bytes]) -> None:
        node = change.node
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(change.path[-1], flags, 0o600, dir_fd=parent)
        try:
            for data in content:
                self._room.take(len(data))
                self.bytes += len(data)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            self._describe(fd, change.path, node)
            os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))
        finally:
            os.close(fd)

    def _link(self, change: Change, parent: int) -> None:
        source = change.source or ()
        directory = self._directory(source[:-1])
        try:
            os.link(
                source[-1], change.path[-1], src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False
            )
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            raise InvalidValue(
                f"the entry {shown(tree.text(change.path))} is one hard link too many for this host's file system",
                hint="a data directory on XFS or btrfs takes more",
            ) from error

    def _describe(self, fd: int, path: Path, node: Node) -> None:
        # In this order: a change of the owner takes set-user-ID bits and capabilities away.
        os.fchown(fd, node.uid, node.gid)
        os.fchmod(fd, node.mode)
        for name, value in node.xattrs.items():
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in _CANNOT_HOLD:
                    raise
                raise InvalidValue(
                    f"the entry {shown(tree.text(path))} has the attribute {name} of {len(value)} bytes, "
                    f"which this host's file system cannot hold: {error.strerror}",
                    hint="ext4 holds 4 KiB of attributes for each file; a data directory on XFS holds more",
                ) from error

    def _directory(self, path: Path) -> int:
        """A descriptor to name things in directory ``path``, which is made if it is missing."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            fd = open_strictly(self._root, tree.text(path), flags)
        except FileNotFoundError:
            parent = self._directory(path[:-1])
            os.mkdir(path[-1], 0o700, dir_fd=parent)
            fd = open_strictly(parent, path[-1], flags)
        self._open[path] = fd
        while len(self._open) > _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return fd

    @contextmanager
    def _directory_to_change(self, path: Path) -> Iterator[int]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        fd = open_strictly(self._root, tree.text(path) or b".", flags)
        try:
            yield fd
        finally:
            os.close(fd)


@contextmanager
def _opened(parent: int, name: bytes, flags: int) -> Iterator[int]:
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _set_time(name: bytes, node: Node, parent: int) -> None:
    os.utime(name, ns=(node.mtime_ns, node.mtime_ns), dir_fd=parent, follow_symlinks=False)
