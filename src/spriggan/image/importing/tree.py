"""What layers hold, in memory: one layer, and all layers so far put together as overlayfs does it."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

_MAX_LINKS = 40  # as many as the kernel follows

Path = tuple[bytes, ...]


class Type(enum.Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    FIFO = "FIFO"
    WHITEOUT = "whiteout"  # what was there below is deleted
    DEVICE = "device node"  # dropped; hides what was there below


class Node:
    """One file, directory or link. Hard links are one node under several names."""

    __slots__ = (
        "children",
        "content",
        "gid",
        "implied",
        "mode",
        "mtime_ns",
        "opaque",
        "target",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self, type_: Type, *, mode: int = 0, uid: int = 0, gid: int = 0, mtime_ns: int = 0) -> None:
        self.type = type_
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.xattrs: dict[str, bytes] = {}
        self.target = b""  # of a symbolic link
        self.content: bytes | None = None  # of the few files that somebody wants to read
        self.children: dict[bytes, Node] = {}
        self.opaque = False  # a directory that hides the one below it
        self.implied = False  # a directory that has no entry of its own in its layer

    @property
    def hides(self) -> bool:
        """Whether nothing is to be seen here."""
        return self.type in (Type.WHITEOUT, Type.DEVICE)

    @property
    def is_directory(self) -> bool:
        return self.type is Type.DIRECTORY


def directory() -> Node:
    """A directory that nobody described."""
    node = Node(Type.DIRECTORY, mode=0o755)
    node.implied = True
    return node


def implied(below: Node | None) -> Node:
    """A directory that an entry needs and nobody described: it stays as it is in the layers below."""
    node = directory()
    if below is not None:
        node.mode, node.uid, node.gid, node.mtime_ns = below.mode, below.uid, below.gid, below.mtime_ns
        node.xattrs = dict(below.xattrs)
    return node


def below(upper: Node | None, lower: Node | None, name: bytes) -> Node | None:
    """What the layers below ``upper`` show at ``name`` in this directory, if they are seen at all."""
    if lower is None or not lower.is_directory or (upper is not None and upper.opaque):
        return None
    return lower.children.get(name)


def walk(upper: Node, lower: Node | None) -> Iterator[tuple[Path, Node, Node | None]]:
    """Every name in a layer, its node, and what the layers below show there; parents first."""
    waiting: list[tuple[Path, Node, Node | None]] = [((), upper, lower)]
    while waiting:
        path, node, under = waiting.pop()
        yield path, node, under
        if node.is_directory:
            for name, child in node.children.items():
                waiting.append(((*path, name), child, below(node, under, name)))


def merge(upper: Node, lower: Node) -> None:
    """Put a layer on top of ``lower``, which is changed; parts of ``upper`` become parts of it."""
    waiting = [(upper, lower)]
    while waiting:
        above, under = waiting.pop()
        under.mode, under.uid, under.gid, under.mtime_ns = above.mode, above.uid, above.gid, above.mtime_ns
        under.xattrs = above.xattrs
        if above.opaque:
            under.children = {}
        for name, child in above.children.items():
            found = under.children.get(name)
            if child.hides:
                under.children.pop(name, None)
            elif not child.is_directory:
                under.children[name] = child
            else:
                if found is None or not found.is_directory:
                    found = under.children[name] = directory()
                waiting.append((child, found))


def resolve(root: Node, path: bytes) -> Node | None:
    """What ``path`` names for a process whose root this is; None if there is nothing."""
    names = [name for name in reversed(path.split(b"/")) if name]
    passed = [root]
    links = 0
    while names:
        name = names.pop()
        if name == b".":
            continue
        if name == b"..":
            passed = passed[:-1] or [root]
            continue
        found = passed[-1].children.get(name)
        if found is None:
            return None
        if found.type is Type.SYMLINK:
            links += 1
            if links > _MAX_LINKS:
                return None
            if found.target.startswith(b"/"):
                passed = [root]
            names += [part for part in reversed(found.target.split(b"/")) if part]
        else:
            passed.append(found)
    return passed[-1]


def text(path: Sequence[bytes]) -> bytes:
    """A path as it is written."""
    return b"/".join(path)
