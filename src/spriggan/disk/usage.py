"""How much space there is, and who uses it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import btrfs


@dataclass(frozen=True)
class Usage:
    """Bytes. What disks and checkpoints share counts in each: their sum may exceed ``pool_used``."""

    host_total: int
    host_free: int
    pool_size: int
    pool_allocated: int  # of the host's space
    pool_used: int
    metadata_free: int
    disks: dict[str, int]  # sprite id: allocated
    checkpoints: dict[str, dict[str, int]]  # sprite id: checkpoint id: allocated


def host_space(directory: Path) -> tuple[int, int]:
    """Return total and free bytes of the file system below, without the blocks it reserves for root."""
    host = os.statvfs(directory)
    return host.f_blocks * host.f_frsize, host.f_bavail * host.f_frsize


def allocated(path: Path) -> int:
    """Return the bytes that a file takes, holes not counted; 0 if it does not exist."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def slack(image: Path, root: Path) -> int:
    """Return how much more the volume takes on the host than it has in use: what a trim can give back."""
    space = btrfs.space(root)
    return allocated(image) - space.data_used - space.metadata_used
