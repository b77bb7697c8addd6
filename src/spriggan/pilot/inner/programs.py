"""Programs of the sprite's own root, looked for from outside."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from spriggan.linux.paths import open_in_root

_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def has(rootfs: Path, name: str) -> bool:
    """Whether ``name`` is a program in one of the usual directories below ``rootfs``."""
    return any(is_program(rootfs, f"{directory}/{name}") for directory in _DIRECTORIES)


def is_directory(rootfs: Path, path: str) -> bool:
    """Whether ``path`` is a directory for a process whose root is ``rootfs``."""
    mode = _mode(rootfs, path)
    return mode is not None and stat.S_ISDIR(mode)


def is_program(rootfs: Path, path: str) -> bool:
    """Whether ``path`` is a program for a process whose root is ``rootfs``."""
    mode = _mode(rootfs, path)
    return mode is not None and stat.S_ISREG(mode) and bool(mode & 0o111)


def _mode(rootfs: Path, path: str) -> int | None:
    try:
        fd = open_in_root(rootfs, path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)
