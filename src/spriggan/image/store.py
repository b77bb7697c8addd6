"""The images of a data directory: build, import, look up, mount, remove.

Layout of ``DIR/images``: ``layers/<digest>.erofs``, ``refs/<name>.json`` (written last and
atomically, so an image that is listed is whole), ``mounts/<digest>/``, ``build/`` (only while an
image is made), ``build.log``.

What makes images is imported when one is made: a server only looks them up.
"""

from __future__ import annotations

import builtins
import dataclasses
import errno
import fcntl
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spriggan.errors import AlreadyExists, Broken, Conflict, MissingCapability, NoSpace, NotFound
from spriggan.image import erofs
from spriggan.image.clearing import remove_tree
from spriggan.image.image import DEFAULT_NAME, Image, Layer, check_digest, check_name
from spriggan.image.progress import Progress, Step, silent
from spriggan.linux import copies, durably, mount

if TYPE_CHECKING:
    from spriggan.image.importing.importing import Request
    from spriggan.image.recipe import Recipe

_MARK = ".made"


@dataclass(frozen=True)
class Removed:
    """What ``remove`` did: layers that are gone, and those of the image that others still need."""

    deleted: list[str]
    kept: list[str]


class ImageStore:
    """The images below ``data``. All methods block; several processes may use one store."""

    def __init__(self, data: Path) -> None:
        self._images = data.absolute() / "images"  # the programs of a build have other directories
        self._layers = self._images / "layers"
        self._refs = self._images / "refs"
        self._mounts = self._images / "mounts"

    def build(
        self,
        progress: Progress = silent,
        *,
        name: str = DEFAULT_NAME,
        recipe: Recipe | None = None,
        force: bool = False,
        wait: bool = False,
    ) -> Image:
        """Build image ``name`` and return it; with unchanged inputs, the one that is there.

        ``force`` makes all layers again. An interrupted build leaves nothing that is used. Raises ``Conflict``
        while something else is done to the images, unless it is to ``wait`` until that is over.
        """
        check_name(name)
        if os.geteuid() != 0:
            raise MissingCapability("building an image needs root", hint="Run the command with sudo.")
        from spriggan.image.build import Build  # noqa: PLC0415
        from spriggan.image.recipe import Recipe  # noqa: PLC0415

        recipe = recipe or Recipe.load()
        for directory in (self._layers, self._refs):
            directory.mkdir(parents=True, exist_ok=True)
        with self._turn(progress, wait=wait), self._build_directory() as directory:
            log = self._images / "build.log"
            log.write_bytes(b"")
            build = Build(recipe, directory, log, progress)
            plan = build.plan()
            present = self._find(name)
            if present and not force and self._is_current(present, plan.keys, recipe):
                progress(Step("unchanged", f"{name} is up to date", bytes=present.bytes))
                return present
            image, made = build.make(plan, name=name, known=lambda key: None if force else self._known(key))
            self._publish(image, made)
        return image

    def import_image(self, request: Request, progress: Progress = silent, *, replace: bool = False) -> Image:
        """Import an image and return it; the one that is there, if it is the same.

        ``replace`` puts it in place of another of its name. An interrupted or failed import leaves
        nothing. Raises ``InvalidValue`` naming what may not come in, ``AlreadyExists``, ``NotFound``
        (the source) or ``NoSpace``.
        """
        check_name(request.name)
        if os.geteuid() != 0:
            raise MissingCapability("importing an image needs root", hint="Run the command with sudo.")
        from spriggan.image.importing.importing import Import  # noqa: PLC0415

        for directory in (self._layers, self._refs):
            directory.mkdir(parents=True, exist_ok=True)
        with self._lock("lock", wait=False), self._build_directory() as directory:
            log = self._images / "build.log"
            log.write_bytes(b"")
            try:
                image, made = Import(request, directory, log, progress).make(self._known)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                hint = f"free space on the file system of {self._images}"
                raise NoSpace("there is too little space to import the image", hint=hint) from error
            present = self._find(request.name)
            if present is not None:
                if dataclasses.replace(image, created=present.created, source=present.source) == present:
                    progress(Step("unchanged", f"{image.name} is up to date", bytes=present.bytes))
                    return present
                if not replace:
                    raise AlreadyExists(
                        f"there is another image {image.name!r}",
                        hint="choose another name, or --replace it; sprites made from it keep what they have",
                    )
            self._publish(image, made)
        return image

    def list(self) -> list[Image]:
        """All images, by name."""
        if not self._refs.is_dir():
            return []
        return [self.get(path.stem) for path in sorted(self._refs.glob("*.json"))]

    def get(self, name: str) -> Image:
        """Image ``name``; ``NotFound`` if there is none."""
        image = self._find(check_name(name))
        if image is None:
            raise NotFound(f"there is no image {name!r}", hint="spriggan image build makes the default one.")
        return image

    def remove(self, name: str, in_use: Collection[str]) -> Removed:
        """Forget image ``name``, and delete every layer that no image and nobody ``in_use`` needs."""
        image = self.get(name)
        with self._lock("lock", wait=False), self._lock("mounts.lock", wait=True):
            (self._refs / f"{name}.json").unlink(missing_ok=True)
            durably.sync_directory(self._refs)
            needed = {digest for other in self.list() for digest in other.digests} | set(in_use)
            deleted = [file.stem for file in sorted(self._layers.glob("*.erofs")) if file.stem not in needed]
            self._unmount(deleted)
            for digest in deleted:
                self._layer_file(digest).unlink()
        return Removed(deleted, [digest for digest in image.digests if digest in needed])

    def mount_layers(self, digests: Iterable[str]) -> builtins.list[Path]:
        """Mount layers where they are not mounted yet; return their mount points in the same order."""
        wanted = [check_digest(digest) for digest in digests]
        self._mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock("mounts.lock", wait=True):
            mounted = set(mount.mount_points())
            return [self._mount(digest, mounted) for digest in wanted]

    def unmount_all(self) -> None:
        """Unmount all layers; ``Conflict`` names one that is still used."""
        if not self._mounts.is_dir():
            return
        with self._lock("mounts.lock", wait=True):
            self._unmount(sorted(place.name for place in self._mounts.iterdir()))

    def _mount(self, digest: str, mounted: Collection[str]) -> Path:
        file, place = self._layer_file(digest), self._mounts / digest
        if os.path.realpath(place) in mounted:
            return place
        if not file.is_file():
            raise NotFound(
                f"layer {digest[:12]} is missing", hint="Build its image again: spriggan image build"
            )
        place.mkdir(exist_ok=True)
        try:
            erofs.mount_file(file, place)
        except OSError as error:
            raise Broken(
                f"layer {digest[:12]} cannot be mounted: {error}",
                hint="The kernel needs erofs and, before Linux 6.12, loop devices: modprobe erofs loop",
            ) from error
        return place

    def _unmount(self, digests: Iterable[str]) -> None:
        places = [self._mounts / digest for digest in digests]
        mounted = Counter(mount.mount_points())
        for place in places:
            for _ in range(mounted[os.path.realpath(place)]):
                _unmount(place)
        places = [place for place in places if place.is_dir()]
        if places:
            copies.unmount(*places)
        for place in places:
            place.rmdir()

    def _find(self, name: str) -> Image | None:
        try:
            text = (self._refs / f"{name}.json").read_text()
        except FileNotFoundError:
            return None
        return Image.from_json(text, name=name)

    def _known(self, key: str) -> tuple[Layer, Path] | None:
        for image in self.list():
            for layer in image.layers:
                if layer.key == key and self._is_whole(layer):
                    return layer, self._layer_file(layer.digest)
        return None

    def _is_current(self, image: Image, keys: Iterable[str], recipe: Recipe) -> bool:
        same_layers = [layer.key for layer in reversed(image.layers)] == list(keys)
        same_defaults = (image.user, image.shell, image.environment) == (
            recipe.user,
            recipe.shell,
            recipe.environment,
        )
        return same_layers and same_defaults and all(map(self._is_whole, image.layers))

    def _is_whole(self, layer: Layer) -> bool:
        try:
            return self._layer_file(layer.digest).stat().st_size == layer.bytes
        except FileNotFoundError:
            return False

    def _layer_file(self, digest: str) -> Path:
        return self._layers / f"{digest}.erofs"

    def _publish(self, image: Image, made: dict[str, Path]) -> None:
        """Make new layers and the image visible. ``made`` are files in the build directory."""
        for digest, file in made.items():
            file.chmod(0o444)
            mark = file.rename(file.with_name(f"{digest}{_MARK}"))
            target = self._layer_file(digest)
            if not target.exists() or target.stat().st_size != mark.stat().st_size:
                target.unlink(missing_ok=True)
                # A link, so that what is left in the build directory tells what to undo after a crash.
                os.link(mark, target)
        durably.sync_directory(self._layers)
        self._write_ref(image)

    def _unpublish(self, build: Path) -> None:
        """Delete layers whose publication was cut short before there was an image that needs them."""
        marks = list(build.glob(f"*/*{_MARK}"))
        needed = {digest for image in self.list() for digest in image.digests} if marks else set()
        for mark in marks:
            file = self._layer_file(mark.name.removesuffix(_MARK))
            if file.stem not in needed and file.exists() and file.samefile(mark):
                file.unlink()

    def _write_ref(self, image: Image) -> None:
        durably.write_text(self._refs / f"{image.name}.json", image.to_json(), 0o644)

    @contextmanager
    def _build_directory(self) -> Iterator[Path]:
        """A directory for one image. What a killed process left is deleted first: we hold the lock."""
        parent = self._images / "build"
        self._clear(parent)
        parent.mkdir(mode=0o700)
        try:
            yield Path(tempfile.mkdtemp(dir=parent))
        finally:
            self._clear(parent)

    def _clear(self, build: Path) -> None:
        self._unpublish(build)
        remove_tree(build)

    @contextmanager
    def _turn(self, progress: Progress, *, wait: bool) -> Iterator[None]:
        """The lock of whoever changes images; who waits for it says so."""
        with ExitStack() as held:
            try:
                held.enter_context(self._lock("lock", wait=False))
            except Conflict as error:
                if not wait:
                    raise
                progress(Step("waiting", str(error)))
                held.enter_context(self._lock("lock", wait=True))
            yield

    @contextmanager
    def _lock(self, name: str, *, wait: bool) -> Iterator[None]:
        self._images.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._images / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        except BlockingIOError as error:
            raise Conflict(
                "an image is being built, imported or removed in this data directory",
                hint="Try again when it is done.",
            ) from error
        finally:
            os.close(fd)


def _unmount(place: Path) -> None:
    try:
        mount.umount(place)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise Conflict(
            f"layer {place.name[:12]} is still in use", hint=f"fuser -vm {place} shows by whom."
        ) from error
