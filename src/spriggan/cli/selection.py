"""Which sprite is meant: by option, by argument, or by the ``.sprite`` file of a directory."""

from __future__ import annotations

import json
from pathlib import Path

from spriggan.cli.command import Settings
from spriggan.errors import InvalidRequest

# The official command line reads and writes the same file.
FILE = Path(".sprite")


def sprite_name(settings: Settings, argument: str | None = None) -> str:
    """The name that was given, else the one that this directory remembers."""
    if "" in (argument, settings.sprite):
        # An unset variable of a script. It must not come to mean the sprite of this directory.
        raise InvalidRequest(
            "the sprite's name is empty", hint="leave it out to mean the sprite of 'spriggan use'"
        )
    if argument and settings.sprite and argument != settings.sprite:
        raise InvalidRequest(
            f"two sprites are named, {settings.sprite!r} and {argument!r}", hint="name it once"
        )
    name = argument or settings.sprite or read()
    if not name:
        raise InvalidRequest(
            "no sprite is named",
            hint="add '-s NAME', or choose one with 'spriggan use NAME'",
        )
    return name


def read() -> str | None:
    """The sprite that this directory remembers."""
    # At the root of a sprite's own file system .sprite is a directory.
    if not FILE.is_file():
        return None
    try:
        content = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"the file .sprite of this directory cannot be read ({error})",
            hint="write it again with 'spriggan use NAME'",
        ) from error
    name = content.get("sprite") if isinstance(content, dict) else None
    return name if isinstance(name, str) else None


def write(organization: str, name: str) -> None:
    """Remember ``name`` for this directory."""
    try:
        FILE.write_text(json.dumps({"organization": organization, "sprite": name}) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(
            f"cannot write .sprite in this directory ({error.strerror})", hint="use a directory that is yours"
        ) from error


def forget() -> bool:
    """Forget the sprite of this directory; False if there was none."""
    if not FILE.is_file():
        return False
    FILE.unlink()
    return True
