"""What can be done with files, as run by a child that is already inside the sprite.

Each operation answers with one line of JSON and, for a read, the bytes after it. Files that are
not regular are never read or written: a FIFO or a device could hang or surprise.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

CHUNK = 256 * 1024
MAX_ENTRIES = 100_000
_LENGTH = struct.Struct("!I")


def become(user: str) -> None:
    """Take the ids of ``user`` by the sprite's own passwd and group files.

    Raises ``OSError`` (EINVAL) if there is no such user.
    """
    uid = gid = None
    for record in _records("/etc/passwd", 4):
        if user == record[0]:
            uid, gid = int(record[2]), int(record[3])
            break
    if uid is None and user in ("root", "0"):
        uid, gid = 0, 0
    if uid is None or gid is None:
        raise OSError(errno.EINVAL, f"the sprite has no user {user}")
    groups = [int(record[2]) for record in _records("/etc/group", 4) if user in record[3].split(",")]
    os.setgroups(groups)
    # First to the namespace's root: only from there does becoming somebody else take the
    # capabilities away. The ids we came with mean nothing in here, and would keep them all.
    for group, owner in ((0, 0), (gid, uid)):
        os.setresgid(group, group, group)
        os.setresuid(owner, owner, owner)
    os.umask(0o022)


def perform(request: dict[str, Any], stream: socket.socket) -> None:
    """Do the operation that ``request["op"]`` names. Raises ``OSError``, ``ValueError``, ``KeyError``."""
    operations = {"read": _read, "write": _write, "list": _list, "delete": _delete}
    operations[request["op"]](request, stream)


def _read(request: dict[str, Any], stream: socket.socket) -> None:
    fd = _open_regular(request["path"])
    with os.fdopen(fd, "rb", buffering=0) as file:
        info = os.fstat(fd)
        start, length = _range(request.get("range"), info.st_size)
        _reply(stream, size=info.st_size, start=start, length=length, mtime=info.st_mtime)
        # What grows or shrinks meanwhile must not change how much is sent.
        sent = 0
        while sent < length:
            count = os.sendfile(stream.fileno(), file.fileno(), start + sent, min(length - sent, CHUNK * 4))
            if count == 0:
                return
            sent += count


def _write(request: dict[str, Any], stream: socket.socket) -> None:
    path = os.path.normpath(request["path"])
    parent, name = os.path.split(path)
    if not name or request["path"].endswith("/"):
        raise OSError(errno.EISDIR, "Is a directory", request["path"])
    if request["parents"]:
        _make_directories(parent)
    else:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent)
    existing = _existing(path)
    mode = request["mode"]
    if mode is None:
        mode = stat.S_IMODE(existing.st_mode) if existing else 0o644
    directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    temporary = f".{name[:200]}.{os.urandom(6).hex()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        size = _receive(stream, fd)
        os.fchmod(fd, mode)
        os.fsync(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(temporary, dir_fd=directory)
        raise
    os.fsync(directory)
    _reply(stream, path=path, size=size, mode=f"{mode:04o}")


def _list(request: dict[str, Any], stream: socket.socket) -> None:
    path = os.path.normpath(request["path"])
    info = os.stat(path)
    if not stat.S_ISDIR(info.st_mode):
        entries = [_entry(path, os.path.basename(path), os.lstat(path))]
    else:
        entries = list(_children(path, request["recursive"], request["pattern"]))
        if request["itself"]:
            entries.insert(0, {**_entry(path, "", info), "name": ""})
    _reply(stream, path=path, entries=entries, count=len(entries))


def _delete(request: dict[str, Any], stream: socket.socket) -> None:
    path = os.path.normpath(request["path"])
    if os.path.samestat(os.lstat(path), os.stat("/")):  # by any of its names: / and // at least
        raise OSError(errno.EPERM, "Operation not permitted", path)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        if request["recursive"]:
            _remove_tree(path)
        else:
            os.rmdir(path)
    else:
        os.unlink(path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(directory)
    _reply(stream, deleted=[path], count=1)


def _make_directories(path: str) -> None:
    """Make ``path`` with all its parents. ``os.makedirs`` recurses, and a path may have thousands."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)


def _remove_tree(path: str) -> None:
    """Remove a directory and all in it. ``shutil.rmtree`` recurses, and a tree may be deeper than that.

    Directories are held by descriptor, so none is taken for another that was put in its place.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    parent = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    held = [(parent, "", iter([os.path.basename(path)]))]
    while held:
        directory, own, names = held[-1]
        name = next(names, None)
        if name is None:
            held.pop()
            os.close(directory)
            if held:
                os.rmdir(own, dir_fd=held[-1][0])
            continue
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                child = os.open(name, flags, dir_fd=directory)
                held.append((child, name, iter(os.listdir(child))))
            else:
                os.unlink(name, dir_fd=directory)


def _timestamp(seconds: float) -> str:
    """RFC 3339; a time that has no such form becomes the nearest that has."""
    first, last = -62135596800, 253402300799  # years 1 and 9999
    moment = datetime.fromtimestamp(min(max(seconds, first), last), UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _open_regular(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "Is a directory", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)
    return fd


def _existing(path: str) -> os.stat_result | None:
    """What is at ``path`` now. A symlink is replaced, not followed, as rename(2) does."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(info.st_mode):
        raise OSError(errno.EISDIR, "Is a directory", path)
    return info if stat.S_ISREG(info.st_mode) else None


def _receive(stream: socket.socket, fd: int) -> int:
    """Take length-prefixed pieces until one of length 0; an end without it means: forget it all."""
    total = 0
    while True:
        (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
        if length == 0:
            return total
        data = memoryview(_exactly(stream, length))
        total += length
        while data:
            data = data[os.write(fd, data) :]


def _exactly(stream: socket.socket, length: int) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        count = stream.recv_into(view)
        if count == 0:
            raise OSError(errno.ECANCELED, "the upload was broken off; nothing was written")
        view = view[count:]
    return buffer


def _children(path: str, recursive: bool, pattern: str | None) -> Iterator[dict[str, Any]]:
    count = 0
    pending = [path]
    while pending:
        directory = pending.pop(0)
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            if directory == path:
                raise
            continue  # below, what may not be read is left out
        for name in names:
            full = os.path.join(directory, name)
            try:
                info = os.lstat(full)
            except OSError:
                continue  # gone meanwhile, not to be looked at, or deeper than a path can be long
            if recursive and stat.S_ISDIR(info.st_mode):
                pending.append(full)
            if pattern and not _matches(os.path.relpath(full, path), name, pattern):
                continue
            count += 1
            if count > MAX_ENTRIES:
                raise OSError(errno.EINVAL, f"more than {MAX_ENTRIES} entries; list a part of the tree", path)
            yield _entry(full, name, info)


def _matches(relative: str, name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(relative if "/" in pattern else name, pattern)


def _entry(path: str, name: str, info: os.stat_result) -> dict[str, Any]:
    kind = "file"
    if stat.S_ISDIR(info.st_mode):
        kind = "directory"
    elif stat.S_ISLNK(info.st_mode):
        kind = "symlink"
    return {
        "name": name,
        "path": path,
        "type": kind,
        "size": info.st_size,
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "modTime": _timestamp(info.st_mtime),
        "isDir": kind == "directory",
    }


def _range(wanted: list[int | None] | None, size: int) -> tuple[int, int]:
    """First byte and length of a ``[first, last]`` range; ERANGE if it lies outside the file."""
    if wanted is None:
        return 0, size
    first, last = wanted
    if first is None:  # the last so many bytes
        length = min(last or 0, size)
        if length == 0:
            raise OSError(errno.ERANGE, str(size))
        return size - length, length
    if first >= size:
        raise OSError(errno.ERANGE, str(size))
    end = size - 1 if last is None else min(last, size - 1)
    return first, end - first + 1


def _records(name: str, fields: int) -> Iterator[list[str]]:
    """Records of a colon-separated system file of the sprite, which may hold anything."""
    with contextlib.suppress(OSError):
        fd = _open_regular(name)
        with os.fdopen(fd, "rb") as file:
            for line in file.read(1 << 20).decode(errors="replace").splitlines():
                record = line.split(":")
                if len(record) >= fields and record[2].isascii() and record[2].isdigit():
                    yield record


def _reply(stream: socket.socket, **fields: object) -> None:
    stream.sendall(json.dumps(fields).encode() + b"\n")
