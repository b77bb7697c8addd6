"""Changing modes and owners."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from spriggan.linux import libc
from spriggan.pilot.files import account
from spriggan.pilot.files.answers import MAX_ENTRIES, octal, reply
from spriggan.pilot.files.walking import Step, walk

AT_SYMLINK_NOFOLLOW = 0x100


def chmod(request: dict[str, Any], stream: socket.socket) -> None:
    """Change the mode of a file, or of a tree; links at the top are followed, others left alone."""
    mode: int = request["mode"]
    # Of a directory that will be closed to its owner, what is in it comes first.
    closes = mode & 0o500 != 0o500

    def apply(step: Step) -> bool:
        if stat.S_ISLNK(step.info.st_mode) or (step.is_directory and step.after != closes):
            return False
        _chmod(step, mode)
        return True

    path, paths, count = _apply(request, apply)
    affected = [{"path": each, "mode": octal(mode)} for each in paths]
    reply(stream, path=path, mode=octal(mode), affected=affected, count=count)


def chown(request: dict[str, Any], stream: socket.socket) -> None:
    """Change owner and group of a file, or of a tree with its links themselves."""
    uid = _id(request["uid"], "/etc/passwd")
    gid = _id(request["gid"], "/etc/group")
    seen: dict[str, int] = {}

    def apply(step: Step) -> bool:
        if step.after:
            return False
        os.chown(step.name, uid, gid, dir_fd=step.directory, follow_symlinks=False)
        if not step.path:
            info = os.stat(step.name, dir_fd=step.directory, follow_symlinks=False)
            seen.update(uid=info.st_uid, gid=info.st_gid)
        return True

    path, paths, count = _apply(request, apply)
    ids = {"uid": seen["uid"] if uid < 0 else uid, "gid": seen["gid"] if gid < 0 else gid}
    affected = [{"path": each, **ids} for each in paths]
    reply(stream, path=path, **ids, affected=affected, count=count)


def _apply(request: dict[str, Any], apply: Callable[[Step], bool]) -> tuple[str, list[str], int]:
    """Do it to what is named, and to all below if asked; return the path, the paths changed and their number."""
    path = os.path.normpath(request["path"])
    real = os.path.realpath(request["path"], strict=True)
    parent, name = os.path.split(real)
    directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    changed: list[str] = []
    count = 0
    for step in _steps(directory, name or ".", request["recursive"]):
        try:
            done = apply(step)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{path}/{step.path}".rstrip("/")) from error
        if done:
            count += 1
            if len(changed) < MAX_ENTRIES:
                changed.append(f"{path}/{step.path}" if step.path else path)
    return path, changed, count


def _steps(directory: int, name: str, recursive: bool) -> Any:
    if recursive:
        return walk(directory, name)
    info = os.stat(name, dir_fd=directory, follow_symlinks=False)
    step = Step(directory, name, "", info)
    return [step, Step(directory, name, "", info, after=True)] if step.is_directory else [step]


def _chmod(step: Step, mode: int) -> None:
    """chmod(2) that follows no link which was put there a moment ago."""
    try:
        libc.syscall(
            "fchmodat2", step.directory, os.fsencode(step.name), mode, AT_SYMLINK_NOFOLLOW, what="chmod"
        )
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise OSError(error.errno, os.strerror(error.errno or 0)) from error
        _chmod_by_descriptor(step, mode)  # Linux before 6.6


def _chmod_by_descriptor(step: Step, mode: int) -> None:
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(step.name, flags, dir_fd=step.directory)
    except PermissionError:
        # Only a user without rights gets here, to whom a link gives none either.
        os.chmod(step.name, mode, dir_fd=step.directory)
        return
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _id(value: object, file: str) -> int:
    """The id that ``value`` means, a number or a name; -1, which changes nothing, for None."""
    if value is None:
        return -1
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        return account.number_of(value, file)
    number = int(str(value)[:12])
    if not 0 <= number < (1 << 32) - 1:
        raise OSError(errno.EINVAL, f"{number} is not an id")
    return number
