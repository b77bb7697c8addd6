"""The files of an image as it was given: in a directory, or in a tar archive that is read in place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from spriggan.errors import InvalidValue
from spriggan.image.importing.limits import Budget, Limits
from spriggan.image.importing.streams import Part, Seeking
from spriggan.image.importing.tar import Kind, Tar, shown
from spriggan.linux.paths import open_in_root

WHOLE = ""  # the name of an archive itself among its files

_MAX_LINKS = 8  # `docker save` links layers that several images share
_MAX_MEMBERS = 20_000  # an archive of images has a few for each layer; with more it is a root file system


class Files(Protocol):
    """Files by name, as the formats of images name them: ``blobs/sha256/…``."""

    def open(self, name: str) -> AbstractContextManager[Part]:
        """The file of that name, to be read. Raises ``FileNotFoundError``."""
        ...

    def __contains__(self, name: str) -> bool: ...


class Directory:
    """A directory of the host. Links in it lead nowhere outside."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def open(self, name: str) -> Iterator[Part]:
        try:
            fd = open_in_root(self._root, name, os.O_RDONLY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise FileNotFoundError(error.errno, f"{name} is missing") from error
            raise
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise FileNotFoundError(errno.ENOENT, f"{name} is not a regular file")
            yield Part(fd, 0, info.st_size)
        finally:
            os.close(fd)

    def __contains__(self, name: str) -> bool:
        try:
            with self.open(name):
                return True
        except FileNotFoundError:
            return False


class Archive:
    """The members of an uncompressed tar archive. ``fd`` stays the caller's."""

    def __init__(self, fd: int, limits: Limits) -> None:
        self._fd = fd
        self._members: dict[str, tuple[int, int]] = {}  # name: offset and size
        self._links: dict[str, str] = {}
        size = os.fstat(fd).st_size
        archive = Tar(Seeking(Part(fd, 0, size)), Budget(limits))
        for count, entry in enumerate(archive):
            if count == _MAX_MEMBERS:
                self._members, self._links = {}, {}
                break
            name = _normal(os.fsdecode(entry.name))
            if entry.kind is Kind.FILE:
                self._members[name] = (archive.position, entry.size)
                self._links.pop(name, None)
            elif entry.kind is Kind.SYMLINK:
                self._links[name] = _normal(f"{name}/../{os.fsdecode(entry.target)}")
            elif entry.kind is Kind.HARDLINK:
                self._links[name] = _normal(os.fsdecode(entry.target))
        self._members[WHOLE] = (0, size)
        self._links.pop(WHOLE, None)

    @contextmanager
    def open(self, name: str) -> Iterator[Part]:
        found = self._find(name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, f"{name} is missing")
        yield Part(self._fd, *found)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> tuple[int, int] | None:
        name = _normal(name)
        for _ in range(_MAX_LINKS):
            if name in self._links:
                name = self._links[name]
        return self._members.get(name)


@contextmanager
def opened(files: Files, name: str) -> Iterator[Part]:
    """A file that must be there. Raises ``InvalidValue`` if it is not."""
    try:
        with files.open(name) as part:
            yield part
    except FileNotFoundError as error:
        hint = "the archive is not complete; make or fetch it again"
        raise InvalidValue(f"{shown(name)} is missing in it", hint=hint) from error


def read(files: Files, name: str, limit: int) -> bytes:
    """All of a small file. Raises ``InvalidValue`` if it is missing or not small."""
    with opened(files, name) as part:
        data = bytearray()
        while piece := part.read(limit + 1 - len(data)):
            data += piece
            if len(data) > limit:
                raise InvalidValue(f"{shown(name)} in it has more than {limit >> 20} MiB")
        return bytes(data)


def _normal(name: str) -> str:
    """A name without ``.``, ``..`` and doubled slashes; it is compared with others and nothing else."""
    return os.path.normpath("/" + name).lstrip("/")
