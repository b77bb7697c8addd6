"""What this server says of itself in the ``Sprite-Version`` header."""

from __future__ import annotations

import re

from spriggan import __version__

HEADER = "Sprite-Version"


def sprite_version(version: str = __version__) -> str:
    """The header's value: ``v`` and the release number, without any pre-release part.

    The official Go client chooses by it how it attaches to a session: for a release it asks
    ``/exec/{id}``, for what it cannot read as a semantic version it falls back to the old
    ``/exec?id=``. A Python pre-release ("0.2.0.dev1") would be such a case.
    """
    release = re.match(r"\d+\.\d+\.\d+", version)
    return f"v{release.group()}" if release else "v0.0.0"


def headers() -> list[tuple[bytes, bytes]]:
    """The header, for what is written by hand."""
    return [(HEADER.encode(), sprite_version().encode())]
