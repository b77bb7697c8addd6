"""Putting a whole file in the place of another, or where there was none.

What is there in the end is what a program that opened the name for writing would have made: it is
followed through symlinks, and an existing file keeps its owner, mode and attributes. But it appears
at once, by a rename: nobody ever sees half of it. (Other names of an existing file, hard links, keep
the old content.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from spriggan.linux import paths
from spriggan.pilot.files import account
from spriggan.pilot.files.patience import syncing

MAX_LINKS = 40  # as the kernel's
DEFAULT_MODE = 0o644
# ``part`` becomes another content of a file, ``new`` a new file; whoever watches is told so.
TEMPORARY = re.compile(r"\..{1,200}\.[0-9a-f]{12}\.(part|new)", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """A name in an open directory, and the regular file that it is of now."""

    directory: int
    name: str
    existing: os.stat_result | None
    path: str

    def mode(self, wanted: int | None) -> int:
        """The mode that the file is to have.

        Clients send the default whether or not somebody asked for it, so an existing file keeps its own then.
        """
        if self.existing is None:
            return DEFAULT_MODE if wanted is None else wanted
        asked = wanted is not None and wanted != DEFAULT_MODE
        if os.geteuid() == 0:
            return wanted if asked and wanted is not None else stat.S_IMODE(self.existing.st_mode)
        if asked and wanted is not None and os.geteuid() == self.existing.st_uid:
            group = self.existing.st_gid in (os.getegid(), *os.getgroups())
            return wanted if group else wanted & ~stat.S_ISGID  # as chmod(2) does
        return stat.S_IMODE(self.existing.st_mode) & ~(stat.S_ISUID | stat.S_ISGID)  # as write(2) does


def find(path: str) -> Target:
    """Find out which file a program that opens ``path`` for writing would write.

    Raises ``OSError`` if it would not be let, or if that is not a regular file.
    """
    place = path
    for _ in range(MAX_LINKS):
        parent, name = os.path.split(place)
        if name in ("", ".", ".."):
            raise OSError(errno.EISDIR, "Is a directory", path)
        directory = os.open(parent or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            existing = _look(directory, name, path)
        except FileNotFoundError:
            return Target(directory, name, None, path)
        if not stat.S_ISLNK(existing.st_mode):
            return Target(directory, name, existing, path)
        with contextlib.suppress(FileNotFoundError):  # one that leads nowhere is where a file is made
            # For the kernel to refuse what it would not follow: a stranger's link in a directory like /tmp.
            os.close(os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=directory))
        place = os.path.join(parent, os.readlink(name, dir_fd=directory))
        os.close(directory)
    raise OSError(errno.ELOOP, "Too many levels of symbolic links", path)


@contextlib.contextmanager
def replacement(target: Target, mode: int) -> Iterator[int]:
    """Yield a descriptor to write to. What was written becomes the file when the block ends well."""
    kind = "part" if target.existing else "new"
    start = os.fsdecode(os.fsencode(target.name)[:200])
    temporary = f".{start}.{os.urandom(6).hex()}.{kind}"
    fd, by_root = _create(target, temporary)
    try:
        try:
            if target.existing is not None:
                _inherit(target, fd)
            yield fd
            with account.as_root() if by_root or target.existing else contextlib.nullcontext():
                os.fchmod(fd, mode)
            with syncing():
                os.fsync(fd)
        finally:
            os.close(fd)
        _rename(target, temporary)
    except BaseException:
        with contextlib.suppress(OSError), account.as_root():
            os.unlink(temporary, dir_fd=target.directory)
        raise
    with account.as_root():
        sync_directory(".", target.directory)


def sync_directory(path: str, directory: int | None = None) -> None:
    """Make a directory's entries safe."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with syncing():
            os.fsync(fd)
    finally:
        os.close(fd)


def _look(directory: int, name: str, path: str) -> os.stat_result:
    """What ``name`` is: a link, or a regular file that may be written."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        info = os.fstat(fd)
        if stat.S_ISDIR(info.st_mode):
            raise OSError(errno.EISDIR, "Is a directory", path)
        if stat.S_ISLNK(info.st_mode):
            return info
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        if not paths.may_write(fd):  # of the very file whose owner is taken over later
            raise OSError(errno.EACCES, "Permission denied", path)
        return info
    finally:
        os.close(fd)


def _create(target: Target, name: str) -> tuple[int, bool]:
    """Open a new file beside the target; the second is whether only root could.

    A file that the user may write in a directory that they may not is theirs to change all the same.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, 0o600, dir_fd=target.directory), False
    except PermissionError as error:
        if target.existing is None:
            raise OSError(error.errno, error.strerror, target.path) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, target.path) from error
    with account.as_root():
        return os.open(name, flags, 0o600, dir_fd=target.directory), True


def _rename(target: Target, temporary: str) -> None:
    """Put the new file in its place. What the user may write they may replace, also where the directory
    is not theirs.
    """
    places = {"src_dir_fd": target.directory, "dst_dir_fd": target.directory}
    try:
        os.rename(temporary, target.name, **places)
    except PermissionError:
        if target.existing is None or not _unchanged(target):
            raise
        with account.as_root():
            os.rename(temporary, target.name, **places)


def _unchanged(target: Target) -> bool:
    assert target.existing is not None  # noqa: S101 - asked by all callers
    now = os.stat(target.name, dir_fd=target.directory, follow_symlinks=False)
    return os.path.samestat(now, target.existing)


def _inherit(target: Target, fd: int) -> None:
    """Give the new file the owner and attributes of the one it replaces."""
    existing = target.existing
    assert existing is not None  # noqa: S101 - asked by the only caller
    with account.as_root():
        made = os.fstat(fd)
        if (made.st_uid, made.st_gid) != (existing.st_uid, existing.st_gid):
            os.fchown(fd, existing.st_uid, existing.st_gid)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            old = os.open(target.name, flags, dir_fd=target.directory)
            try:
                if os.path.samestat(os.fstat(old), existing):
                    copy_attributes(old, fd)
            finally:
                os.close(old)


def copy_attributes(source: int, target: int) -> None:
    """Copy extended attributes, access lists among them, but not capabilities: a write takes those away."""
    for name in os.listxattr(source):
        if name != "security.capability":
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))
