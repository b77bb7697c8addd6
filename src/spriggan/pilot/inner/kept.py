"""Names kept back on a sprite's disk, so that it starts again when all files were made that the disk can hold.

Of its blocks ext4 keeps some for the host's root, of its inodes none, and mounting an overlay takes a few.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_WHERE = "kept"  # at the top of the disk, where the sprite does not see it
_NAMES = [str(number) for number in range(16)]


def give(disk: Path) -> None:
    """Free them where hardly any others are left. Raises ``OSError`` if the disk cannot be written."""
    if os.statvfs(disk).f_ffree < len(_NAMES):
        for name in _NAMES:
            (disk / _WHERE / name).unlink(missing_ok=True)


def keep(disk: Path) -> None:
    """Keep them back, as many as there are. A disk on which that cannot be done is none the worse for it."""
    with contextlib.suppress(OSError):
        place = disk / _WHERE
        place.mkdir(mode=0o700, exist_ok=True)
        there = {path.name for path in place.iterdir()}
        for name in _NAMES:
            if name not in there:
                (place / name).touch(mode=0o600)
