"""Who the commands of an imported image run as, and with which shell."""

from __future__ import annotations

from dataclasses import dataclass

from spriggan.errors import InvalidValue
from spriggan.image.importing import tree
from spriggan.image.importing.tar import shown
from spriggan.image.importing.tree import Node, Type

PREFERRED = "sprite"  # the user of our own images
_SHELL = "/bin/sh"
_NO_LOGIN = ("nologin", "false")


@dataclass(frozen=True)
class Login:
    """The defaults of a sprite's commands. ``shell`` is empty where there is none."""

    user: str
    shell: str


def login(root: Node, user: str) -> Login:
    """Who runs commands in the root file system ``root``: ``user`` if it is not empty.

    ``user`` is a name or number, perhaps with ``:`` and a group's. Raises ``InvalidValue`` for a name
    that the image's /etc/passwd or /etc/group does not have.
    """
    accounts = _records(root, b"etc/passwd", 7)
    if not user:
        known = any(record[0] == PREFERRED for record in accounts)
        user = PREFERRED if known else "root"
    name, _, group = user.partition(":")
    account = next((record for record in accounts if name in (record[0], record[2])), None)
    if account is None and not _is_id(name) and name != "root":
        raise InvalidValue(
            f"the image has no user {shown(name)} in its /etc/passwd, and is to run as that one",
            hint="--user NAME chooses another, or --user UID:GID",
        )
    if group and not _is_id(group) and not any(r[0] == group for r in _records(root, b"etc/group", 4)):
        raise InvalidValue(
            f"the image has no group {shown(group)} in its /etc/group, and is to run with that one",
            hint="--user NAME chooses another user, or --user UID:GID",
        )
    own = account[6] if account else ""
    if own.rpartition("/")[2] in _NO_LOGIN or not _is_program(root, own):
        own = _SHELL if _is_program(root, _SHELL) else ""
    return Login(user, own)


def distribution(root: Node) -> str:
    """What /etc/os-release calls the system, in words such as "alpine 3.19.1"; "" if it is not there."""
    fields = {}
    for line in _text(root, b"etc/os-release").splitlines():
        name, _, value = line.partition("=")
        fields[name.strip()] = value.strip().strip("\"'")
    version = fields.get("VERSION_CODENAME") or fields.get("VERSION_ID", "")
    return " ".join(part for part in (fields.get("ID", ""), version) if part)[:80]


def _is_program(root: Node, path: str) -> bool:
    if not path.startswith("/"):
        return False
    node = tree.resolve(root, path.encode("utf-8", "surrogateescape"))
    return node is not None and node.type is Type.FILE and bool(node.mode & 0o111)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535


def _records(root: Node, path: bytes, fields: int) -> list[list[str]]:
    lines = (line.split(":") for line in _text(root, path).splitlines())
    return [record for record in lines if len(record) >= fields]


def _text(root: Node, path: bytes) -> str:
    node = tree.resolve(root, path)
    content = node.content if node is not None and node.type is Type.FILE else None
    return (content or b"").decode("utf-8", "surrogateescape")
