"""What makes a sprite itself on its disk: host name, machine id, host keys.

A new disk is a clone of a blank and a fork's disk is a clone of its parent's. A marker on the
disk tells whose it is; where that is somebody else's, the identity is written anew. A spare's disk
gets what needs no name; the name, and the marker, when there is a sprite to have them.

Everything here happens on the mounted disk before the sprite runs, but its content is the
user's: a directory may be a symlink to anywhere. So directories are opened one by one without
following links, and files are replaced, never opened for writing.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

MARKER = "sprite/identity"
UPPER = "root-upper/upper"


@dataclass(frozen=True)
class Identity:
    """Who the sprite on a disk is."""

    sprite_id: str
    hostname: str  # empty: a spare's


def settle(disk: Path, identity: Identity) -> bool:
    """Make the disk ``identity``'s. Return whether host keys of another sprite were removed."""
    if is_settled(disk, identity):
        return False
    removed = False
    if identity.hostname:
        write_name(disk / UPPER, identity.hostname)
    with _directory(disk / UPPER, "etc") as etc:
        if etc is not None:
            _replace(etc, "machine-id", f"{uuid.uuid4().hex}\n")
            _create(etc, "resolv.conf", "nameserver 10.0.0.2\nnameserver fdf::2\n")
    with _directory(disk / UPPER, "etc", "ssh", create=False) as ssh:
        if ssh is not None:
            removed = _remove_host_keys(ssh)
    if identity.hostname:
        mark(disk, identity)
    return removed


def is_settled(disk: Path, identity: Identity) -> bool:
    """Whether the disk is ``identity``'s already."""
    marker = disk / MARKER
    return marker.exists() and marker.read_text() == _words(identity)


def write_name(root: Path, hostname: str) -> None:
    """Let the files below ``root`` name the sprite."""
    with _directory(root, "etc") as etc:
        if etc is not None:
            _replace(etc, "hostname", f"{hostname}\n")
            _replace(etc, "hosts", _hosts(hostname))


def mark(disk: Path, identity: Identity) -> None:
    """Write down whose the disk is; durable on return."""
    marker = disk / MARKER
    temporary = marker.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, _words(identity).encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(marker)


def _words(identity: Identity) -> str:
    return f"{identity.sprite_id}\n"


def _hosts(hostname: str) -> str:
    return (
        "127.0.0.1 localhost\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
        f"10.0.0.1 {hostname}\n"
        f"fdf::1 {hostname}\n"
    )


@contextlib.contextmanager
def _directory(root: Path, *names: str, create: bool = True):  # type: ignore[no-untyped-def]
    """Yield a descriptor of ``root/names…``, or None where a name is not a plain directory."""
    fds = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for name in names:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=fds[-1])
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fds.append(os.open(name, flags, dir_fd=fds[-1]))
    except (NotADirectoryError, FileNotFoundError, OSError):
        yield None
    else:
        yield fds[-1]
    finally:
        for fd in fds:
            os.close(fd)


def _replace(directory: int, name: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError:
            return  # the user's doing; theirs to keep
    _create(directory, name, text)


def _create(directory: int, name: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        fd = os.open(name, flags, 0o644, dir_fd=directory)
        try:
            os.write(fd, text.encode())
            os.fchmod(fd, 0o644)
        finally:
            os.close(fd)


def _remove_host_keys(ssh: int) -> bool:
    removed = False
    for name in os.listdir(ssh):
        if name.startswith("ssh_host_"):
            with contextlib.suppress(IsADirectoryError):
                os.unlink(name, dir_fd=ssh)
                removed = True
    return removed
