"""Deleting, moving and copying files and directories."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
from typing import Any

from spriggan.linux import libc
from spriggan.pilot.files import replacing
from spriggan.pilot.files.answers import MAX_ENTRIES, reply
from spriggan.pilot.files.patience import syncing
from spriggan.pilot.files.reading import open_regular, visible
from spriggan.pilot.files.walking import OPEN_DIRECTORY, Step, walk

PIECE = 64 << 20
# What copy_file_range(2) says where it does not work; reading and writing does.
_NO_SHORTCUT = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EBADF,
    errno.EPERM,
    errno.ETXTBSY,
}


def delete(request: dict[str, Any], stream: socket.socket) -> None:
    """Remove a file, a link, an empty directory or, if asked for, a tree."""
    path = os.path.normpath(request["path"])
    if _is_root(request["path"]):
        raise OSError(errno.EPERM, "Operation not permitted", path)
    directory, name = _place(request["path"])
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
    elif request["recursive"]:
        _remove_tree(directory, name)
    else:
        os.rmdir(name, dir_fd=directory)
    _sync(directory)
    reply(stream, deleted=[path], count=1)


def rename(request: dict[str, Any], stream: socket.socket) -> None:
    """Move a file or directory; what is at the new name is replaced, as rename(2) does.

    To another file system (``/tmp`` is one) it is copied, and appears there at once and whole.
    """
    source, dest = (os.path.normpath(request[key]) for key in ("path", "dest"))
    for path in (request["path"], request["dest"]):
        if _is_root(path):
            raise OSError(errno.EBUSY, "Device or resource busy", path)
    from_directory, name = _place(request["path"])
    to_directory, new_name = _place(request["dest"])
    try:
        os.rename(name, new_name, src_dir_fd=from_directory, dst_dir_fd=to_directory)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise _about(error, dest if _exists(from_directory, name) else source) from error
        _move(from_directory, name, to_directory, new_name, dest)
    for directory in (from_directory, to_directory):
        _sync(directory)
    reply(stream, source=source, dest=dest)


def copy(request: dict[str, Any], stream: socket.socket) -> None:
    """Copy a file, or a tree into a directory that is there or made. Links in a tree stay links."""
    source, dest = (os.path.normpath(request[key]) for key in ("path", "dest"))
    copied = _Copied(source, dest)
    path = visible(request["path"])
    if not stat.S_ISDIR(os.stat(path).st_mode):
        copied.add("", _copy_over(path, request["dest"], preserve=request["preserve"]))
    elif not request["recursive"]:
        raise OSError(errno.EISDIR, "Is a directory", source)
    else:
        _copy_directory(path, request["dest"], request["preserve"], copied)
    reply(stream, copied=copied.named, count=copied.count, totalBytes=copied.size, source=source, dest=dest)


class _Copied:
    """What a copy did. ``named`` are the first so many."""

    def __init__(self, source: str, dest: str) -> None:
        self._source = source
        self._dest = dest
        self.named: list[dict[str, str]] = []
        self.count = 0
        self.size = 0

    def add(self, path: str, size: int) -> None:
        self.count += 1
        self.size += size
        if len(self.named) < MAX_ENTRIES:
            places = {"source": self._source, "dest": self._dest}
            self.named.append({key: f"{top}/{path}" if path else top for key, top in places.items()})


def _copy_over(source: str, dest: str, *, preserve: bool) -> int:
    """Copy a regular file to where a program that writes ``dest`` would write; return its size."""
    fd = open_regular(source)
    try:
        info = os.fstat(fd)
        target = replacing.find(dest)
        if target.existing is not None and os.path.samestat(target.existing, info):
            raise OSError(errno.EINVAL, "Source and destination are the same file", source)
        mode = target.mode(None) if target.existing else stat.S_IMODE(info.st_mode) & ~0o022
        if preserve:
            mode = stat.S_IMODE(info.st_mode) & (0o7777 if os.geteuid() == 0 else 0o777)
        with replacing.replacement(target, mode) as out:
            size = _copy_data(fd, out)
            if preserve:
                _preserve(fd, out, info)
        return size
    finally:
        os.close(fd)


def _copy_directory(source: str, dest: str, preserve: bool, copied: _Copied) -> None:
    inside = os.path.realpath(dest)
    if f"{inside}/".startswith(f"{os.path.realpath(source)}/".replace("//", "/")):
        raise OSError(errno.EINVAL, "A directory cannot be copied into itself", source)
    from_directory, name = _place(os.path.realpath(source))
    to_directory, new_name = _place(inside)
    _copy_tree(from_directory, name, to_directory, new_name, preserve=preserve, copied=copied)
    _sync(to_directory, whole_system=True)


def _copy_tree(
    from_directory: int,
    name: str,
    to_directory: int,
    new_name: str,
    *,
    preserve: bool,
    copied: _Copied | None = None,
) -> None:
    """Copy ``name`` and all below it. Existing directories are filled, existing files replaced."""
    into = [(to_directory, False)]  # the directories being filled, from the outermost, and which are new
    for step in walk(from_directory, name):
        if step.after:
            _finish_directory(step, *into.pop(), preserve)
            continue
        target, target_name = into[-1][0], step.name if step.path else new_name
        size = 0
        if step.is_directory:
            into.append(_make_directory(target, target_name))
        else:
            size = _copy_entry(step, target, target_name, preserve)
        if copied is not None:
            copied.add(step.path, size)


def _make_directory(target: int, name: str) -> tuple[int, bool]:
    """Make a directory, open to its owner alone while it is filled; return it open, and whether it is new."""
    new = True
    try:
        os.mkdir(name, 0o700, dir_fd=target)
    except FileExistsError:
        new = False
    return os.open(name, OPEN_DIRECTORY, dir_fd=target), new


def _finish_directory(step: Step, made: int, new: bool, preserve: bool) -> None:
    if new:
        os.fchmod(made, stat.S_IMODE(step.info.st_mode) & ~0o022)
    if preserve:
        source = os.open(step.name, OPEN_DIRECTORY, dir_fd=step.directory)
        try:
            _preserve(source, made, step.info)
        finally:
            os.close(source)
    os.close(made)


def _copy_entry(step: Step, target: int, name: str, preserve: bool) -> int:
    """Copy what is no directory; return how many bytes that were."""
    kind = stat.S_IFMT(step.info.st_mode)
    if kind != stat.S_IFREG:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(step.name, dir_fd=step.directory), name, dir_fd=target)
        else:
            os.mknod(name, step.info.st_mode, step.info.st_rdev, dir_fd=target)
        if preserve:
            _own_name(target, name, step.info)
        return 0
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    source = os.open(step.name, flags, dir_fd=step.directory)
    temporary = f".{os.fsdecode(os.fsencode(name)[:200])}.{os.urandom(6).hex()}.new"
    out = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target
    )
    try:
        size = _copy_data(source, out)
        os.fchmod(out, stat.S_IMODE(step.info.st_mode) & ~0o022)
        if preserve:
            _preserve(source, out, step.info)
        os.rename(temporary, name, src_dir_fd=target, dst_dir_fd=target)
    except BaseException:
        os.unlink(temporary, dir_fd=target)
        raise
    finally:
        os.close(source)
        os.close(out)
    return size


def _copy_data(source: int, out: int) -> int:
    """Copy all of ``source``, its holes as holes; return its length."""
    info = os.fstat(source)
    if info.st_size == 0:  # empty, or a pseudo file, whose size says nothing
        with os.fdopen(source, "rb", closefd=False) as content, os.fdopen(out, "wb", closefd=False) as copied:
            shutil.copyfileobj(content, copied)
            return copied.tell()
    position = 0
    while True:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole is left
        end = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, out, start, end - start)
        position = end
    size = max(info.st_size, position)
    os.ftruncate(out, size)
    return size


def _copy_range(source: int, out: int, start: int, length: int) -> None:
    done = 0
    while done < length:
        try:
            count = os.copy_file_range(source, out, min(length - done, PIECE), start + done, start + done)
        except OSError as error:
            if error.errno not in _NO_SHORTCUT:
                raise
            data = os.pread(source, min(length - done, 1 << 20), start + done)
            count = os.pwrite(out, data, start + done) if data else 0
        if count == 0:
            return  # it shrank meanwhile
        done += count


def _preserve(source: int, out: int, info: os.stat_result) -> None:
    """Give a copy the times and attributes of its original, and the owner where that is allowed."""
    mode = stat.S_IMODE(info.st_mode)
    try:
        os.fchown(out, info.st_uid, info.st_gid)
    except PermissionError:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
    os.fchmod(out, mode)  # after the owner, for that change takes bits away
    with contextlib.suppress(OSError):
        replacing.copy_attributes(source, out)
    os.utime(out, ns=(info.st_atime_ns, info.st_mtime_ns))


def _own_name(target: int, name: str, info: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _move(from_directory: int, name: str, to_directory: int, new_name: str, dest: str) -> None:
    """Move to another file system: copy beside the new name, rename, remove the original."""
    temporary = f".{os.fsdecode(os.fsencode(new_name)[:200])}.{os.urandom(6).hex()}.new"
    try:
        _copy_tree(from_directory, name, to_directory, temporary, preserve=True)
        _sync(to_directory, whole_system=True)
        os.rename(temporary, new_name, src_dir_fd=to_directory, dst_dir_fd=to_directory)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            _remove_tree(to_directory, temporary)
        if isinstance(error, OSError):
            raise _about(error, dest) from error
        raise
    _remove_tree(from_directory, name)


def _remove_tree(directory: int, name: str) -> None:
    for step in walk(directory, name):
        with contextlib.suppress(FileNotFoundError):
            if step.after:
                os.rmdir(step.name, dir_fd=step.directory)
            elif not step.is_directory:
                os.unlink(step.name, dir_fd=step.directory)


def _place(path: str) -> tuple[int, str]:
    """The directory that ``path`` is in, open, and its name there."""
    parent, name = os.path.split(path.rstrip("/") or "/")
    if name in (".", ".."):
        raise OSError(errno.EINVAL, "Invalid argument", path)
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(parent, flags | os.O_RDONLY), name
    except PermissionError:  # one that may be used, but not listed
        return os.open(parent, flags | os.O_PATH), name


def _sync(directory: int, *, whole_system: bool = False) -> None:
    """Make the directory's entries safe, or all of its file system: for a tree that is quicker."""
    try:
        with syncing():
            if whole_system:
                libc.call("syncfs", directory, what="syncfs")
            else:
                os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EBADF:  # one that the user may not read
            raise


def _is_root(path: str) -> bool:
    """Whether it is ``/`` by any of its names; ``//`` is one."""
    try:
        return os.path.samestat(os.lstat(path), os.stat("/"))
    except FileNotFoundError:
        return False


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True


def _about(error: OSError, path: str) -> OSError:
    """The same error with the path that the client knows, not the name that was used."""
    return OSError(error.errno, error.strerror, path)
