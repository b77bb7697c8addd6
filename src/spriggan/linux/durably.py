"""Small files that are whole after a crash."""

from __future__ import annotations

import os
from pathlib import Path

from spriggan import faults


def write_text(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that after a crash there is either all of it or what was before.

    For one writer at a time: what a crash leaves half written is written over by the next.
    """
    temporary = path.with_name(f".{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, mode)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        faults.point("file:written")
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Have what was made, renamed or removed in ``directory`` on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
