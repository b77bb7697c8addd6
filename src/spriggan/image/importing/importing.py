"""Import one image: read and judge every layer, then make an erofs file of each that is new.

A layer is read twice. The first time nothing is written: its digests are verified, its entries judged,
and it turns out whether there is such a layer already. Only then is it unpacked and packed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from spriggan.errors import Broken, InvalidRequest, InvalidValue, NotFound
from spriggan.image import erofs
from spriggan.image.clearing import remove_tree
from spriggan.image.command import Runner
from spriggan.image.image import Image, Layer
from spriggan.image.importing import accounts, layout, tree
from spriggan.image.importing.admission import MAX_READ, READ, Admission
from spriggan.image.importing.files import WHOLE, Archive, Directory, Files, opened
from spriggan.image.importing.layout import Found, Source
from spriggan.image.importing.limits import Budget, Limits, Room
from spriggan.image.importing.planting import Planter
from spriggan.image.importing.streams import CHUNK, Part, Pipe, Plain
from spriggan.image.importing.tar import BLOCK, Tar, check_beginning
from spriggan.image.importing.tree import Node, Type
from spriggan.image.progress import Progress, Step, step

# Changes when the same archive would give a different layer because the importer changed.
_FORMAT = 1
_EPOCH = 2**33  # later than the time of any file, so that all of them stay
_TELL_EVERY_S = 5.0

STANDARD_INPUT = Path("-")

Known = Callable[[str], tuple[Layer, Path] | None]


@dataclass(frozen=True)
class Request:
    """What is to be imported, and as what."""

    source: Path  # a file, a directory, or STANDARD_INPUT
    name: str
    reference: str | None = None  # chooses one of several images
    user: str = ""  # who commands run as; empty: whom the image says
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class _Stored:
    """A layer in its archive."""

    source: Source
    below: Node | None  # what the layers below it show together
    title: str  # for people: "layer 2 of 5"

    @property
    def is_whole(self) -> bool:
        """Whether it is all there is: a root file system, where no name stands for a deletion."""
        return self.source.name == WHOLE


@dataclass(frozen=True)
class _Judged:
    """A layer that was read to its end and may come in."""

    admission: Admission
    digest: str  # of the plain archive
    bytes: int
    entries: int
    key: str

    def __str__(self) -> str:
        dropped = str(self.admission.dropped)
        return f"{self.entries} entries" + (f", dropped {dropped}" if dropped else "")


class Import:
    """One import into ``directory``, which is the import's alone."""

    def __init__(self, request: Request, directory: Path, log: Path, progress: Progress) -> None:
        self._request = request
        self._directory = directory
        self._runner = Runner(log, {})
        self._progress = progress
        self._budget = Budget(request.limits)
        self._room = Room(directory)

    def make(self, known: Known) -> tuple[Image, dict[str, Path]]:
        """Make the image; ``known`` finds layers that exist already, by key.

        Returns the image and its new layer files by digest, which are the caller's to keep. Raises
        ``InvalidValue`` naming what may not come in, ``NotFound``, ``InvalidRequest`` or ``NoSpace``.
        """
        request = self._request
        with self._opened(request.source) as files:
            found = layout.find(files, request.reference)
            if found is None and isinstance(files, Directory):
                hint = f"a root file system: tar -C {request.source} -c . | spriggan image import {request.name} -"
                raise InvalidValue(f"{request.source} is a directory, and no OCI layout", hint=hint)
            if found is None and request.reference is not None:
                raise InvalidValue("a root file system has no names to choose from", hint="leave --ref out")
            return self._make(files, found or Found("root file system", "", [Source(WHOLE, "", "")]), known)

    def _make(self, files: Files, found: Found, known: Known) -> tuple[Image, dict[str, Path]]:
        root = tree.directory()
        layers: list[Layer] = []  # lowest first
        made: dict[str, Path] = {}
        for number, source in enumerate(found.layers, 1):
            title = f"layer {number} of {len(found.layers)}" if len(found.layers) > 1 else "the file system"
            stored = _Stored(source, root if number > 1 else None, title)
            with step(self._progress, f"read {title}") as done:
                judged = self._judge(files, stored)
                done.bytes, done.note = judged.bytes, str(judged)
            layer = judged.admission.layer
            if layer.opaque:
                layers = []  # overlayfs does not look for the mark on a layer's own root
            if layer.children:
                packed = known(judged.key)
                if packed is None:
                    packed = self._pack(files, stored, judged)
                    made[packed[0].digest] = packed[1]
                # The same layer again: whatever the lower one holds is hidden by the upper one.
                layers = [other for other in layers if other.digest != packed[0].digest]
                stage = "root" if stored.is_whole else f"layer-{number}"
                layers.append(replace(packed[0], stage=stage))
            tree.merge(layer, root)
        if not root.children:
            raise InvalidValue("the image holds no files", hint="a sprite needs a root file system")
        login = accounts.login(root, self._request.user or found.user)
        image = Image(
            name=self._request.name,
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            distribution=accounts.distribution(root),
            layers=tuple(reversed(layers)),
            user=login.user,
            shell=login.shell,
            environment=found.environment,
            working_dir=found.working_dir,
            entrypoint=found.entrypoint,
            command=found.command,
            source=f"{found.form} {found.reference}".strip(),
        )
        return image, {digest: file for digest, file in made.items() if digest in image.digests}

    def _judge(self, files: Files, stored: _Stored) -> _Judged:
        """Read a layer to its end, without writing anything."""
        source = stored.source
        admission = Admission(stored.below, self._budget, whiteouts=not stored.is_whole)
        before = self._budget.entries
        tell = self._teller(f"read {stored.title}")
        with opened(files, source.name) as part:
            plain = Plain(part, self._budget)
            archive = Tar(plain, self._budget)
            for entry in archive:
                change = admission.admit(entry)
                if change is not None and change.path in READ and change.node.type is Type.FILE:
                    if change.source is None and entry.size <= MAX_READ:
                        change.node.content = b"".join(archive.chunks())
                tell(plain.count)
            plain.drain()
        for digest, told in ((plain.raw_digest, source.digest), (plain.digest, source.diff_id)):
            if told and digest != told:
                raise InvalidValue(
                    f"{stored.title} does not have the digest that it should have: "
                    f"{digest[:12]} and not {told[:12]}",
                    hint="the archive is damaged or was altered; fetch it again",
                )
        facts = {
            "format": _FORMAT,
            "archive": plain.digest,
            "whole": stored.is_whole,
            **admission.facts(),
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return _Judged(admission, plain.digest, plain.count, self._budget.entries - before, key)

    def _pack(self, files: Files, stored: _Stored, judged: _Judged) -> tuple[Layer, Path]:
        """Unpack a layer that was judged, and pack it as erofs."""
        work = self._directory / "tree"
        work.mkdir()
        with step(self._progress, f"unpack {stored.title}") as done, Planter(work, self._room) as planter:
            self._unpack(files, stored, judged, planter)
            done.bytes = planter.bytes
        with step(self._progress, f"pack {stored.title}") as done:
            self._room.need(planter.bytes)
            file = self._directory / "layer.erofs"
            erofs.pack(work, file, runner=self._runner, epoch=_EPOCH, level=erofs.QUICK)
            digest = erofs.digest(file)
            remove_tree(work)
            done.bytes = file.stat().st_size
        return Layer(digest, "", file.stat().st_size, judged.key), file.rename(
            self._directory / f"{digest}.erofs"
        )

    def _unpack(self, files: Files, stored: _Stored, judged: _Judged, planter: Planter) -> None:
        budget = Budget(self._request.limits)
        admission = Admission(stored.below, budget, whiteouts=not stored.is_whole)
        tell = self._teller(f"unpack {stored.title}")
        with opened(files, stored.source.name) as part:
            plain = Plain(part, budget)
            archive = Tar(plain, budget)
            for entry in archive:
                change = admission.admit(entry)
                if change is not None:
                    planter.plant(change, archive.chunks())
                tell(plain.count)
            plain.drain()
        if plain.digest != judged.digest:
            raise Broken("the archive was changed while it was read", hint="import it again")
        planter.finish(admission.layer, stored.below)

    @contextmanager
    def _opened(self, source: Path) -> Iterator[Files]:
        """The files at ``source``. What is compressed or comes through a pipe is unpacked for it."""
        fd = _open(source)
        try:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                yield Directory(source)
                return
            with step(self._progress, "read the archive") as done:
                plain = self._plain(fd)
                try:
                    files = Archive(plain, self._request.limits)
                except BaseException:
                    os.close(plain)
                    raise
                done.bytes = os.fstat(plain).st_size
            try:
                yield files
            finally:
                os.close(plain)
        finally:
            os.close(fd)

    def _plain(self, fd: int) -> int:
        """A descriptor of a file that holds the archive uncompressed; the caller closes it."""
        budget = Budget(self._request.limits)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            plain = Plain(Part(fd, 0, os.fstat(fd).st_size), budget)
            if not plain.compression:
                return os.dup(fd)
        else:
            plain = Plain(Pipe(fd), budget)
        tell = self._teller("read the archive")
        copy = os.open(
            self._directory / "archive.tar", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        with open(copy, "wb", buffering=0, closefd=False) as file:
            try:
                data = plain.read(BLOCK)
                check_beginning(data)  # or a long pipe of something else would be copied first
                while data:
                    budget.spend(len(data))
                    self._room.take(len(data))
                    file.write(data)
                    tell(plain.count)
                    data = plain.read(CHUNK)
            except BaseException:
                os.close(copy)
                raise
        return copy

    def _teller(self, title: str) -> Callable[[int], None]:
        """A function that reports now and then how many bytes were read."""
        told = time.monotonic()

        def tell(count: int) -> None:
            nonlocal told
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                self._progress(Step(title, f"{count / 1e6:.1f} MB so far"))

        return tell


def _open(source: Path) -> int:
    if source == STANDARD_INPUT:
        return os.dup(0)
    try:
        return os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no {source}", hint="name an archive or a layout of this machine") from error
    except OSError as error:
        raise InvalidRequest(f"{source} cannot be read: {error.strerror}") from error
