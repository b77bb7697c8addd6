"""Which entries of a layer may come in, and what they mean.

An archive says where its entries go, and whoever wrote it may have meant somewhere else: above the
root, or through a link that an earlier entry or layer put there. So every entry is judged against
what the layer and all layers below it hold by then, and what is in doubt is refused by name. Only
names and kinds are looked at here; nothing is written.

Whiteouts are those of https://github.com/opencontainers/image-spec/blob/main/layer.md.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

from spriggan.errors import InvalidValue
from spriggan.image.importing import tree
from spriggan.image.importing.limits import Budget
from spriggan.image.importing.tar import Entry, Kind, shown
from spriggan.image.importing.tree import Node, Path, Type

MAX_NAME = 255
MAX_PATH = 4095
MAX_DEPTH = 200  # Python and mkfs.erofs walk directories by recursion
MAX_ID = 65535  # a sprite has 65,536 ids

# Files that decide how commands run, and how large they may be.
READ = {(b"etc", b"passwd"), (b"etc", b"group"), (b"etc", b"os-release"), (b"usr", b"lib", b"os-release")}
MAX_READ = 1 << 20

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."

_CAPABILITY = "security.capability"
# struct vfs_cap_data of version 2 (include/uapi/linux/capability.h), and version 3 with its root id.
_CAPABILITY_2, _CAPABILITY_3 = 0x02000000, 0x03000000


@dataclass(frozen=True)
class Change:
    """An entry that may come in."""

    path: Path
    node: Node
    source: Path | None = None  # a hard link: another name of the node
    replaces: bool = False  # the layer has had something of this name before


@dataclass(frozen=True)
class Dropped:
    """What does not come in, and is counted."""

    devices: int
    attributes: dict[str, int]  # by name

    def __str__(self) -> str:
        parts = [f"{self.devices} device node{'s' * (self.devices != 1)}"] if self.devices else []
        if self.attributes:
            parts.append(f"{sum(self.attributes.values())} attributes ({', '.join(sorted(self.attributes))})")
        return " and ".join(parts)


class Admission:
    """Judges the entries of one layer; ``below`` is what the layers below it show together."""

    def __init__(self, below: Node | None, budget: Budget, *, whiteouts: bool) -> None:
        self.below = below
        self._budget = budget
        self.layer = tree.implied(below)
        self._whiteouts = whiteouts
        self._devices = 0
        self._attributes: Counter[str] = Counter()

    def admit(self, entry: Entry) -> Change | None:
        """The change that ``entry`` makes; None if there is nothing to write for it.

        Raises ``InvalidValue`` with the name of an entry that may not come in.
        """
        path = _path(entry, entry.name, "")
        if self._whiteouts and any(name.startswith(_WHITEOUT) for name in path):
            self._whiteout(entry, path)
            return None
        _check_ids(entry)
        if not path:
            self._describe(self.layer, entry)
            return None
        parent = self._directory(entry, path[:-1])
        existing = parent.children.get(path[-1])
        if entry.kind is Kind.DIRECTORY:
            return self._admit_directory(entry, path, parent, existing)
        if existing is not None and existing.is_directory:
            raise _refused(entry, f"is a {entry.kind.value} in place of a directory of the same layer")
        source = None
        if entry.kind is Kind.HARDLINK:
            source, node = self._link_source(entry, path)
        else:
            node = self._new(entry)
        if node.type is Type.DEVICE and existing is not None and not existing.hides:
            raise _refused(entry, "is a device node in place of something else of the same layer")
        parent.children[path[-1]] = node
        if node.type is Type.DEVICE:
            self._devices += 1
            return None
        return Change(path, node, source, replaces=existing is not None and not existing.hides)

    @property
    def dropped(self) -> Dropped:
        return Dropped(self._devices, dict(self._attributes))

    def facts(self) -> dict[str, Any]:
        """What the layer's files depend on besides its archive, since it is in the layers below."""
        hidden, inherited = [], []
        for path, node, under in tree.walk(self.layer, self.below):
            name = tree.text(path).hex()
            if node.hides and under is not None:
                hidden.append(name)
            elif node.is_directory and node.implied and under is not None:
                xattrs = sorted((key, value.hex()) for key, value in node.xattrs.items())
                inherited.append([name, node.mode, node.uid, node.gid, node.mtime_ns, xattrs])
        return {"hidden": sorted(hidden), "inherited": sorted(inherited)}

    def _admit_directory(
        self, entry: Entry, path: Path, parent: Node, existing: Node | None
    ) -> Change | None:
        if existing is None or existing.type is Type.WHITEOUT:
            node = parent.children[path[-1]] = tree.directory()
            node.opaque = existing is not None
        elif existing.is_directory:
            node = existing
        else:
            raise _refused(entry, f"is a directory in place of a {existing.type.value} of the same layer")
        self._describe(node, entry)
        return Change(path, node)

    def _new(self, entry: Entry) -> Node:
        types = {
            Kind.FILE: Type.FILE,
            Kind.SYMLINK: Type.SYMLINK,
            Kind.FIFO: Type.FIFO,
            Kind.DEVICE: Type.DEVICE,
        }
        node = Node(types[entry.kind])
        if entry.kind is Kind.SYMLINK:
            if not entry.target or b"\0" in entry.target or len(entry.target) > MAX_PATH:
                raise _refused(entry, "is a symbolic link to nothing that could be a path")
            node.target = entry.target
        if entry.kind is not Kind.DEVICE:
            self._describe(node, entry)
        return node

    def _describe(self, node: Node, entry: Entry) -> None:
        node.mode, node.uid, node.gid, node.mtime_ns = entry.mode, entry.uid, entry.gid, entry.mtime_ns
        node.implied = False
        node.xattrs = {}
        for name, value in entry.xattrs.items():
            kept = _kept_xattr(node.type, name, value)
            if kept is None:
                self._attributes[name if name.isprintable() else ascii(name)] += 1
            else:
                node.xattrs[name] = kept

    def _directory(self, entry: Entry, path: Path) -> Node:
        """The layer's node of the directory that ``entry`` is in, made where the layer has none.

        Raises if a name on the way is no directory.
        """
        node, under = self.layer, self.below
        for depth, name in enumerate(path):
            child, beneath = node.children.get(name), tree.below(node, under, name)
            visible = child if child is not None else beneath
            if visible is not None and not visible.is_directory and visible.type is not Type.WHITEOUT:
                raise _blocked(entry, path[: depth + 1], visible, earlier=child is None)
            if child is None or child.type is Type.WHITEOUT:
                self._budget.entry()
                made = tree.implied(None if child is not None else beneath)
                made.opaque = child is not None
                child = node.children[name] = made
            node, under = child, None if child.opaque else beneath
        return node

    def _link_source(self, entry: Entry, path: Path) -> tuple[Path, Node]:
        source = _path(entry, entry.target, "links to ")
        if self._whiteouts and any(name.startswith(_WHITEOUT) for name in source):
            raise _refused(entry, f"links to {shown(entry.target)}, which stands for a deletion")
        node: Node | None = self.layer
        under = self.below
        for depth, name in enumerate(source):
            if node is not None and not node.is_directory:
                node = None
            child = node.children.get(name) if node is not None else None
            beneath = tree.below(node, under, name)
            visible = child if child is not None else beneath
            last = depth == len(source) - 1
            if not last and visible is not None and visible.type is Type.SYMLINK:
                raise _blocked(entry, source[: depth + 1], visible, earlier=child is None)
            node, under = child, beneath
        if node is not None and node.is_directory:
            raise _refused(entry, f"links to {shown(entry.target)}, which is a directory")
        if node is None or node.type is Type.WHITEOUT:
            where = " of this layer" if self.below is not None else ""
            raise _refused(entry, f"links to {shown(entry.target)}, which is no earlier entry{where}")
        if source == path:
            raise _refused(entry, "links to itself")
        return source, node

    def _whiteout(self, entry: Entry, path: Path) -> None:
        # AUFS, which invented the scheme, keeps records of its own under reserved names.
        if any(name.startswith(_RESERVED) and name != _OPAQUE for name in path):
            return
        if any(name.startswith(_WHITEOUT) for name in path[:-1]):
            raise _refused(entry, "is below a name that stands for a deletion")
        if entry.kind is Kind.DIRECTORY:
            raise _refused(entry, "stands for a deletion, and is a directory")
        parent = self._directory(entry, path[:-1])
        if path[-1] == _OPAQUE:
            parent.opaque = True
            return
        name = path[-1].removeprefix(_WHITEOUT)
        if name in (b"", b".", b".."):
            raise _refused(entry, f"stands for the deletion of {shown(name)}")
        existing = parent.children.get(name)
        if existing is None:
            parent.children[name] = Node(Type.WHITEOUT)
        elif existing.is_directory:
            existing.opaque = True  # only what is below is deleted


def _path(entry: Entry, name: bytes, what: str) -> Path:
    """The names on the way to an entry from the root, also if it begins with a slash."""
    subject = f"{what}{shown(name)}, which " if what else ""
    for code, called in ((b"\0", "a NUL byte"), (b"\n", "a line break")):
        if code in name:
            raise _refused(entry, f"{subject}has {called} in its name")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise _refused(entry, f"{subject}goes up with '..', which could lead out of the root")
    if not parts and not (name and what == "" and entry.kind is Kind.DIRECTORY):
        raise _refused(entry, f"{subject}names no file")
    if parts and name.endswith((b"/", b"/.")) and (what or entry.kind is not Kind.DIRECTORY):
        raise _refused(entry, f"{subject}is named as a directory, and is none")
    if len(parts) > MAX_DEPTH or sum(map(len, parts)) + len(parts) > MAX_PATH:
        raise _refused(entry, f"{subject}is more than {MAX_DEPTH} directories deep or {MAX_PATH} bytes long")
    if any(len(part) > MAX_NAME for part in parts):
        raise _refused(entry, f"{subject}has a name of more than {MAX_NAME} bytes")
    return parts


def _check_ids(entry: Entry) -> None:
    for kind, number in (("user", entry.uid), ("group", entry.gid)):
        if number > MAX_ID:
            raise InvalidValue(
                f"the entry {shown(entry.name)} belongs to {kind} {number}, and a sprite has the ids 0 to {MAX_ID}",
                hint="give it another owner in the image, or make the archive with --owner and --group",
            )


def _kept_xattr(type_: Type, name: str, value: bytes) -> bytes | None:
    """What is kept of an attribute; None: it is dropped.

    Links and FIFOs cannot have any that are kept. Capabilities that a container's own root gave
    (version 3 with a root id) mean a user that a sprite does not have.
    """
    if "\0" in name or len(os.fsencode(name)) > MAX_NAME:
        return None
    if name.startswith("user.") and name != "user." and type_ in (Type.FILE, Type.DIRECTORY):
        return value
    if name == _CAPABILITY and type_ is Type.FILE and len(value) in (20, 24):
        magic = struct.unpack("<I", value[:4])[0]
        if len(value) == 20 and magic & 0xFF000000 == _CAPABILITY_2:
            return value
        if len(value) == 24 and magic & 0xFF000000 == _CAPABILITY_3 and value[20:] == bytes(4):
            return struct.pack("<I", magic & 0xFFFFFF | _CAPABILITY_2) + value[4:20]
    return None


def _refused(entry: Entry, why: str) -> InvalidValue:
    return InvalidValue(
        f"the entry {shown(entry.name)} {why}",
        hint="nothing was imported; an archive that a tool made as it should has no such entry",
    )


def _blocked(entry: Entry, path: Path, visible: Node, *, earlier: bool) -> InvalidValue:
    where = "/" + shown(tree.text(path)).strip("'")
    by = " of an earlier layer" if earlier else ""
    if visible.type is Type.SYMLINK:
        return _refused(
            entry, f"would be written through the symbolic link '{where}'{by} to {shown(visible.target)}"
        )
    return _refused(entry, f"is below '{where}'{by}, which is a {visible.type.value} and no directory")
