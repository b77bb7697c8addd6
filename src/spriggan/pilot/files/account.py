"""Who a child of the files server is: one of the sprite's users, with no more rights than that user has."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from spriggan.pilot import accounts

MAX_RECORDS = 1 << 20  # bytes of a system file that are looked at


def become(user: str, *, keep_root: bool = False) -> None:
    """Take the ids of ``user`` by the sprite's own passwd and group files.

    With ``keep_root`` the sprite's root can be taken on again, see ``as_root``. Raises ``OSError``
    (EINVAL) if there is no such user.
    """
    account = accounts.find(user, _text("/etc/passwd"), _text("/etc/group"))
    if account is None:
        raise OSError(errno.EINVAL, f"the sprite has no user {user}")
    uid, gid = account.uid, account.gid
    os.setgroups(account.groups)
    # First to the namespace's root: only from there does becoming somebody else take the
    # capabilities away. The ids we came with mean nothing in here, and would keep them all.
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, 0 if keep_root else uid)
    os.umask(0o022)


@contextlib.contextmanager
def as_root() -> Iterator[None]:
    """Be the sprite's root for what the user may do by another way, after ``become(…, keep_root=True)``."""
    user = os.geteuid()
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(user)


def number_of(name: str, file: str) -> int:
    """The id of a user or group by ``/etc/passwd`` or ``/etc/group``. Raises ``OSError`` (EINVAL)."""
    for record in records(file, 3):
        if record[0] == name:
            return int(record[2])
    raise OSError(errno.EINVAL, f"{file} has no {name[:80]}")


def records(name: str, fields: int) -> Iterator[list[str]]:
    """Records of a colon-separated system file of the sprite, which may hold anything."""
    for line in _text(name).splitlines():
        record = line.split(":")
        if len(record) >= fields and record[2].isascii() and record[2].isdigit():
            yield record


def _text(name: str) -> str:
    """A system file of the sprite; empty if there is none."""
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return file.read(MAX_RECORDS).decode(errors="replace")
    return ""
