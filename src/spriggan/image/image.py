"""What an image is: its layers and the defaults of the sprites made from it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from spriggan.errors import Broken, InvalidRequest

DEFAULT_NAME = "sprites"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Layer:
    """One read-only file system. ``digest`` is the SHA-256 of its file."""

    digest: str
    stage: str  # what it holds, in one word: "base", "system", "languages"
    bytes: int
    key: str  # digest of everything that went in; an equal key means an equal layer

    def __post_init__(self) -> None:
        check_digest(self.digest)


@dataclass(frozen=True)
class Image:
    """A name for an ordered list of layers, with the defaults of its sprites."""

    name: str
    created: str  # RFC 3339, UTC
    distribution: str  # what it was built from, e.g. "debian bookworm"
    layers: tuple[Layer, ...]  # topmost first, as overlayfs wants them
    user: str
    shell: str
    environment: dict[str, str]
    # Of imported images; others have none.
    working_dir: str = ""  # where commands start; empty: in the user's home
    entrypoint: tuple[str, ...] = ()  # what a container of it would run: shown, never run by itself
    command: tuple[str, ...] = ()
    source: str = ""  # the form that it was imported from, and its name there

    @property
    def digests(self) -> list[str]:
        """The layers' digests, topmost first."""
        return [layer.digest for layer in self.layers]

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, *, name: str) -> Image:
        """Read a reference; raise ``Broken`` if it is not one, or says to be another's."""
        try:
            data: dict[str, Any] = json.loads(text)
            data["layers"] = tuple(Layer(**layer) for layer in data["layers"])
            for name_of_list in ("entrypoint", "command"):
                data[name_of_list] = tuple(data.get(name_of_list, ()))
            image = cls(**data)
            valid = image.name == name and bool(image.layers)
        except (ValueError, TypeError, KeyError, InvalidRequest) as error:
            raise _damaged(name, str(error)) from error
        if not valid:
            raise _damaged(name, "it names another image or has no layers")
        return image


def check_name(name: str) -> str:
    """Return ``name`` if it may name an image; it becomes a file name."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} cannot be the name of an image",
            hint="Use 1 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends.",
        )
    return name


def check_digest(digest: str) -> str:
    """Return ``digest`` if it is one; it becomes a file name."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidRequest(
            f"{digest[:80]!r} is not the digest of a layer", hint="A digest is 64 hexadecimal digits."
        )
    return digest


def _damaged(name: str, why: str) -> Broken:
    return Broken(
        f"the record of image {name!r} is damaged: {why}",
        hint=f"Build it again: spriggan image rm {name} && spriggan image build",
    )
