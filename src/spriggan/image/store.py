"""The images of a data directory: build, look up, mount, remove.

Layout of ``DIR/images``: ``layers/<digest>.erofs``, ``refs/<name>.json`` (written last and
atomically, so an image that is listed is whole), ``mounts/<digest>/``, ``build/`` (only while
building), ``build.log``.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spriggan.errors import Broken, Conflict, MissingCapability, NotFound
from spriggan.image import erofs
from spriggan.image.build import Build, remove_tree
from spriggan.image.image import DEFAULT_NAME, Image, Layer, check_digest, check_name
from spriggan.image.progress import Progress, Step, silent
from spriggan.image.recipe import Recipe
from spriggan.linux import copies, mount


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
    ) -> Image:
        """Build image ``name`` and return it; with unchanged inputs, the one that is there.

        ``force`` makes all layers again. An interrupted build leaves nothing that is used.
        """
        check_name(name)
        if os.geteuid() != 0:
            raise MissingCapability("building an image needs root", hint="Run the command with sudo.")
        recipe = recipe or Recipe.load()
        for directory in (self._layers, self._refs):
            directory.mkdir(parents=True, exist_ok=True)
        with self._lock("lock", wait=False), self._build_directory() as directory:
            log = self._images / "build.log"
            log.write_bytes(b"")
            build = Build(recipe, directory, log, progress)
            plan = build.plan()
            present = self._find(name)
            if present and not force and self._is_current(present, plan.keys, recipe):
                progress(Step("unchanged", f"{name} is up to date", bytes=present.bytes))
                return present
            image, made = build.make(plan, name=name, known=lambda key: None if force else self._known(key))
            for digest, file in made.items():
                file.chmod(0o444)
                file.rename(self._layer_file(digest))
            _sync(self._layers)
            self._write_ref(image)
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
            _sync(self._refs)
            needed = {digest for other in self.list() for digest in other.digests} | set(in_use)
            deleted = []
            for file in sorted(self._layers.glob("*.erofs")):
                if file.stem not in needed:
                    self._unmount(file.stem)
                    file.unlink()
                    deleted.append(file.stem)
        return Removed(deleted, [digest for digest in image.digests if digest in needed])

    def mount_layers(self, digests: Iterable[str]) -> builtins.list[Path]:
        """Mount layers where they are not mounted yet; return their mount points in the same order."""
        wanted = [check_digest(digest) for digest in digests]
        self._mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock("mounts.lock", wait=True):
            return [self._mount(digest) for digest in wanted]

    def unmount_all(self) -> None:
        """Unmount all layers; ``Conflict`` names one that is still used."""
        if not self._mounts.is_dir():
            return
        with self._lock("mounts.lock", wait=True):
            for place in sorted(self._mounts.iterdir()):
                self._unmount(place.name)

    def _mount(self, digest: str) -> Path:
        file, place = self._layer_file(digest), self._mounts / digest
        if mount.is_mount_point(place):
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

    def _unmount(self, digest: str) -> None:
        place = self._mounts / digest
        while mount.is_mount_point(place):
            try:
                mount.umount(place)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                raise Conflict(
                    f"layer {digest[:12]} is still in use", hint=f"fuser -vm {place} shows by whom."
                ) from error
        if place.is_dir():
            copies.unmount(place)
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

    def _write_ref(self, image: Image) -> None:
        temporary = self._refs / f".{image.name}.new"
        with temporary.open("w") as stream:
            stream.write(image.to_json())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(self._refs / f"{image.name}.json")
        _sync(self._refs)

    @contextmanager
    def _build_directory(self) -> Iterator[Path]:
        """A directory for one build. What a killed build left is deleted first: we hold the lock."""
        parent = self._images / "build"
        remove_tree(parent)
        parent.mkdir(mode=0o700)
        try:
            yield Path(tempfile.mkdtemp(dir=parent))
        finally:
            remove_tree(parent)

    @contextmanager
    def _lock(self, name: str, *, wait: bool) -> Iterator[None]:
        self._images.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._images / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        except BlockingIOError as error:
            raise Conflict(
                "an image is being built or removed in this data directory", hint="Try again when it is done."
            ) from error
        finally:
            os.close(fd)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
