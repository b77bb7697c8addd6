"""Who a user of the sprite is, by its own /etc/passwd and /etc/group, which it may edit.

As container engines read the USER of an image: a name or number, perhaps with ``:`` and a group's name
or number; a number needs no entry (https://github.com/opencontainers/image-spec/blob/main/config.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Account:
    """A user with all that decides what it may do, and where it is at home."""

    name: str
    uid: int
    gid: int
    groups: list[int]
    home: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell programs who they run as."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def find(user: str, passwd: str, group: str) -> Account | None:
    """The account that ``user`` names; None if there is no such user or group.

    ``passwd`` and ``group`` are the texts of the sprite's files.
    """
    name, colon, wanted_group = user.partition(":")
    account = _user(name, passwd)
    if account is None or not colon or not wanted_group:
        return account and _with_groups(account, group)
    gid = _group_id(wanted_group, group)
    # Whoever names a group gets that one alone, as from other engines.
    return None if gid is None else Account(account.name, account.uid, gid, [], account.home)


def _user(name: str, passwd: str) -> Account | None:
    for record in _records(passwd, 4):
        if name in (record[0], record[2]) and _is_id(record[3]):
            home = record[5] if len(record) > 5 and record[5].startswith("/") else "/"
            return Account(record[0], int(record[2]), int(record[3]), [], home)
    if name == "root":
        return Account("root", 0, 0, [], "/root")
    return Account(name, int(name), 0, [], "/") if _is_id(name) else None


def _with_groups(account: Account, group: str) -> Account:
    groups = [int(record[2]) for record in _records(group, 4) if account.name in record[3].split(",")]
    return Account(account.name, account.uid, account.gid, groups, account.home)


def _group_id(wanted: str, group: str) -> int | None:
    for record in _records(group, 3):
        if record[0] == wanted:
            return int(record[2])
    return int(wanted) if _is_id(wanted) else None


def _records(text: str, fields: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        record = line.split(":")
        if len(record) >= fields and _is_id(record[2]):
            yield record


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
