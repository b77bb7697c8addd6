"""Find the image in what was given: its layers, and the defaults of whoever runs it.

Three forms, told apart by content: an OCI layout (a directory or its tar), a Docker archive
(``docker save``), and a plain root file system. They are read here rather than by skopeo or umoci:
each is one or three small JSON files that name layers, and those programs unpack an archive whole,
with no limit to what comes out of it, before anything could be judged.

The forms: https://github.com/opencontainers/image-spec/blob/main/image-layout.md (also manifest.md and
config.md) and https://github.com/moby/docker-image-spec/blob/main/spec.md ("Combined Image JSON").
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from spriggan.errors import InvalidValue
from spriggan.image.importing.files import Files, read
from spriggan.image.importing.tar import shown

# Docker's own limit; overlayfs takes 500.
MAX_LAYERS = 127
_MAX_JSON = 8 << 20
_MAX_INDEXES = 4  # an index may name another
_MAX_ENVIRONMENT = 64 << 10  # half of what a command's arguments and variables may take together

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_CONFIG_NAME = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class Source:
    """One layer as it is stored: a tar archive, compressed or not."""

    name: str  # of its file
    digest: str  # of the file, in hexadecimal digits; "" if nobody says
    diff_id: str  # of the archive in it; "" if nobody says


@dataclass(frozen=True)
class Found:
    """An image as its archive describes it."""

    form: str  # "OCI layout", "Docker archive", "root file system"
    reference: str  # its name there, or ""
    layers: list[Source]  # lowest first
    user: str = ""
    working_dir: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


class _Json(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Platform(_Json):
    architecture: str = ""
    os: str = ""


class _Descriptor(_Json):
    mediaType: str = ""
    digest: str
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def names(self) -> list[str]:
        return [self.annotations[key] for key in _NAMES if key in (self.annotations or {})]  # type: ignore[index]


class _Index(_Json):
    manifests: list[_Descriptor]


class _Manifest(_Json):
    config: _Descriptor
    layers: list[_Descriptor]


class _Execution(_Json):
    User: str | None = None
    WorkingDir: str | None = None
    Env: list[str] | None = None
    Entrypoint: list[str] | None = None
    Cmd: list[str] | None = None


class _RootFs(_Json):
    diff_ids: list[str]


class _Config(_Json):
    architecture: str = ""
    os: str = "linux"
    config: _Execution | None = None
    rootfs: _RootFs


class _Saved(_Json):
    Config: str
    Layers: list[str]
    RepoTags: list[str] | None = None


class _SavedList(RootModel[list[_Saved]]):
    pass


class _LayoutFile(_Json):
    imageLayoutVersion: str = Field(min_length=1)


J = TypeVar("J", bound=BaseModel)


def find(files: Files, reference: str | None) -> Found | None:
    """The image in ``files``; None if they are no image of these forms.

    ``reference`` chooses one of several by its name. Raises ``InvalidValue`` if that is not possible
    or a description is damaged, for another architecture, or larger than it may be.
    """
    if _holds(files, "oci-layout", _LayoutFile) and "index.json" in files:
        return _from_layout(files, reference)
    if _holds(files, "manifest.json", _SavedList):
        return _from_docker(files, reference)
    return None


def _holds(files: Files, name: str, model: type[BaseModel]) -> bool:
    # A root file system may have a file of that name, too.
    if name not in files:
        return False
    try:
        model.model_validate_json(read(files, name, _MAX_JSON))
    except (ValidationError, InvalidValue):
        return False
    return True


def _from_layout(files: Files, reference: str | None) -> Found:
    index = _parse(_Index, read(files, "index.json", _MAX_JSON), "index.json")
    chosen = _choose(
        index.manifests, reference, lambda descriptor: descriptor.names, [d.names for d in index.manifests]
    )
    descriptor = _for_this_machine(chosen)
    name = next(iter(descriptor.names), "")
    for _ in range(_MAX_INDEXES):
        if descriptor.mediaType not in _INDEXES:
            break
        inner = _parse(_Index, _blob(files, descriptor.digest), "an index")
        descriptor = _for_this_machine(inner.manifests)
    if descriptor.mediaType not in _MANIFESTS:
        raise InvalidValue(f"it holds {shown(descriptor.mediaType)}, which is no image")
    manifest = _parse(_Manifest, _blob(files, descriptor.digest), "the manifest")
    config = _parse(_Config, _blob(files, manifest.config.digest), "the configuration")
    digests = [_hex(layer.digest) for layer in manifest.layers]
    layers = _paired([(f"blobs/sha256/{digest}", digest) for digest in digests], config)
    return _found("OCI layout", name, layers, config)


def _from_docker(files: Files, reference: str | None) -> Found:
    saved = _parse(_SavedList, read(files, "manifest.json", _MAX_JSON), "manifest.json").root
    chosen = _choose(saved, reference, lambda image: image.RepoTags or [], [s.RepoTags or [] for s in saved])
    if len(chosen) != 1:
        raise _several([s.RepoTags or [] for s in chosen])
    image = chosen[0]
    data = read(files, image.Config, _MAX_JSON)
    named = _CONFIG_NAME.fullmatch(image.Config)
    if named and hashlib.sha256(data).hexdigest() != named[1]:
        raise _altered(image.Config)
    config = _parse(_Config, data, "the configuration")
    layers = _paired([(name, "") for name in image.Layers], config)
    return _found("Docker archive", next(iter(image.RepoTags or []), ""), layers, config)


T = TypeVar("T")


def _choose(images: list[T], reference: str | None, names: Any, all_names: list[list[str]]) -> list[T]:
    """Those of ``images`` that are called ``reference``; all of them if it is None."""
    if not images:
        raise InvalidValue("it holds no image", hint="the archive is empty; make it again")
    if reference is None:
        return images
    chosen = [image for image in images if reference in names(image)]
    if not chosen:
        raise InvalidValue(f"it holds no image {shown(reference)}", hint=f"it holds: {_listed(all_names)}")
    return chosen


def _for_this_machine(descriptors: list[_Descriptor]) -> _Descriptor:
    """The one of ``descriptors`` that is for this host, if that is clear."""
    wanted = _this_architecture()
    if len(descriptors) == 1:
        return descriptors[0]
    mine = [
        d
        for d in descriptors
        if d.platform is not None and (d.platform.os, d.platform.architecture) == ("linux", wanted)
    ]
    if len(mine) == 1:
        return mine[0]
    if mine or not any(d.platform for d in descriptors):
        raise _several([d.names for d in mine or descriptors])
    others = sorted({f"{d.platform.os}/{d.platform.architecture}" for d in descriptors if d.platform})
    raise InvalidValue(f"it holds no image for linux/{wanted}, only for {', '.join(others)[:200]}")


def _found(form: str, reference: str, layers: list[Source], config: _Config) -> Found:
    wanted = _this_architecture()
    if config.os != "linux" or config.architecture not in ("", wanted):
        what = f"{config.os}/{config.architecture}"
        raise InvalidValue(
            f"the image is for {shown(what)}, and this host is linux/{wanted}",
            hint=f"fetch the one for linux/{wanted}",
        )
    told = config.config or _Execution()
    for text in (told.User or "", told.WorkingDir or "", *(told.Entrypoint or []), *(told.Cmd or [])):
        _check_text(text)
    directory = told.WorkingDir or ""
    if directory and not directory.startswith("/"):
        directory = f"/{directory}"
    return Found(
        form=form,
        reference=reference[:200],
        layers=layers,
        user=told.User or "",
        working_dir=directory,
        entrypoint=tuple(told.Entrypoint or ()),
        command=tuple(told.Cmd or ()),
        environment=_environment(told.Env or []),
    )


def _paired(stored: list[tuple[str, str]], config: _Config) -> list[Source]:
    """Layers with what the configuration says about their content."""
    diff_ids = [_hex(digest) for digest in config.rootfs.diff_ids]
    if len(diff_ids) != len(stored):
        raise InvalidValue(f"it has {len(stored)} layers, and its configuration speaks of {len(diff_ids)}")
    if not stored:
        raise InvalidValue("the image has no layers, so there would be nothing in a sprite")
    if len(set(diff_ids)) > MAX_LAYERS:
        raise InvalidValue(
            f"the image has {len(set(diff_ids))} layers, and {MAX_LAYERS} can be put on top of each other",
            hint="make it one layer: podman build --squash-all, or import what 'docker export' writes",
        )
    return [Source(name, digest, diff_id) for (name, digest), diff_id in zip(stored, diff_ids, strict=True)]


def _environment(entries: Iterable[str]) -> dict[str, str]:
    environment = {}
    size = 0
    for entry in entries:
        _check_text(entry)
        name, equals, value = entry.partition("=")
        size += len(entry.encode())
        if not name or size > _MAX_ENVIRONMENT:
            raise InvalidValue(
                f"the image's variable {shown(entry)} has no name, or there are more than "
                f"{_MAX_ENVIRONMENT >> 10} KiB of them"
            )
        if equals:
            environment[name] = value
    return environment


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{ascii(text)[:80]} in its configuration is no text") from error
    if "\0" in text:
        raise InvalidValue(f"{shown(text)} in its configuration has a NUL byte")


def _blob(files: Files, digest: str) -> bytes:
    data = read(files, f"blobs/sha256/{_hex(digest)}", _MAX_JSON)
    if hashlib.sha256(data).hexdigest() != _hex(digest):
        raise _altered(digest)
    return data


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidValue(f"{shown(digest)} is not a SHA-256 digest")
    return match[1]


def _parse(model: type[J], data: bytes, what: str) -> J:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidValue(
            f"{what} in it is damaged: {where}{': ' if where else ''}{first['msg']}",
            hint="make or fetch the archive again",
        ) from error


def _altered(name: str) -> InvalidValue:
    return InvalidValue(f"{shown(name)} in it does not have the digest that it should have")


def _several(names: list[list[str]]) -> InvalidValue:
    return InvalidValue(
        "it holds several images", hint=f"choose one with --ref NAME; it holds: {_listed(names)}"
    )


def _listed(names: Iterable[list[str]]) -> str:
    flat = [shown(name).strip("'") for group in names for name in group]
    return ", ".join(flat[:20]) or "images without names"


def _this_architecture() -> str:
    return _ARCHITECTURES.get(platform.machine(), platform.machine())
