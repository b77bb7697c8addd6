"""The disks of a guest: a root with this checkout installed, and the default image on a second one."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path

import guest_base
import guest_cache

import serving
from spriggan.image.command import Runner
from spriggan.image.image import DEFAULT_NAME
from spriggan.image.recipe import Recipe, Stage
from spriggan.image.store import ImageStore

NESTED_NAME = "with-podman"  # the default image and podman, for guests that have no network
CHECKOUT = "/checkout"  # in the guest
IMAGES = "/media/images"  # where the second disk is mounted in the guest

_PODMAN = (
    "podman",
    "fuse-overlayfs",
    "slirp4netns",
    "uidmap",
)  # with what it wants for users other than root
_PARTS = ("src", "tests", "scripts", "docs", "pyproject.toml", "README.md", "LICENSE")
_INSIDE = Path(__file__).parent / "inside"

# $1 is the root's image, $2 an empty directory, $3 the checkout, $4 the files for the inside, $5 the venv.
_INSTALL = """\
mount -o loop "$1" "$2"
mkdir "$2/checkout"
cp -a "$3/." "$2/checkout/"
chroot "$2" "$5/bin/pip" --isolated --quiet install --no-index --no-deps --no-build-isolation /checkout
chroot "$2" "$5/bin/spriggan" serve --print-unit >"$2/etc/systemd/system/spriggan.service"
cp "$4/agent.service" "$2/etc/systemd/system/"
cat "$4/fstab" >>"$2/etc/fstab"
chroot "$2" systemctl --quiet enable agent.service
umount "$2"
"""


@functools.cache
def root() -> Path:
    """A root file system with this checkout and the unit that ``spriggan serve --print-unit`` prints."""
    base = guest_base.base()
    checkout = guest_base.CHECKOUT
    sources = guest_cache.contents(*(checkout / name for name in _PARTS))
    key = guest_cache.digest([str(base.root).encode(), *sources])
    return guest_cache.cached("root", key, lambda path: _make_root(path, base.root))


def _make_root(image: Path, base: Path) -> None:
    work = image.with_name("root.work")
    shutil.rmtree(work, ignore_errors=True)
    tree, mounted = work / "checkout", work / "mounted"
    mounted.mkdir(parents=True)
    try:
        for name in _PARTS:
            source = guest_base.CHECKOUT / name
            if source.is_dir():
                shutil.copytree(
                    source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            else:
                shutil.copy(source, tree / name)
        runner = Runner(work / "log", {})
        runner.run(["cp", "--sparse=always", base, image], what="copying the root")
        runner.run(
            ["sh", "-eu", "-c", _INSTALL, "install", image, mounted, tree, _INSIDE, guest_base.VENV],
            what="installing the checkout into the root",
            isolated=True,
        )
    finally:
        shutil.rmtree(work)


@functools.cache
def images() -> Path:
    """A disk with the default image and ``NESTED_NAME``."""
    reference = serving.IMAGE_CACHE / "refs" / f"{DEFAULT_NAME}.json"
    key = guest_cache.digest([reference.read_bytes(), " ".join(_PODMAN).encode()])
    return guest_cache.cached("images", key, _make_images)


def _make_images(image: Path) -> None:
    data = image.with_name("images.work")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    try:
        serving.link_images(data)
        default = Recipe.load()
        nested = replace(default, stages=(*default.stages, Stage("podman", packages=_PODMAN)))
        ImageStore(data).build(name=NESTED_NAME, recipe=nested)
        guest_base.format_disk(image, "4G", Runner(data / "log", {}), tree=data)
    finally:
        shutil.rmtree(data)
