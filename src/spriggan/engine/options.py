"""What the operator of a server may choose."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from spriggan.image.image import DEFAULT_NAME


def _host_memory_mb() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def _host_cpus() -> int:
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Options:
    """Settings of an engine; the defaults are those of ``spriggan serve``."""

    organization: str = "spriggan"  # the first part of every token
    url: str = ""  # where a sprite's HTTP service is reached, with {name} in it; empty: nowhere
    default_image: str = DEFAULT_NAME
    default_box: str = "container"
    default_ram_mb: int = 2048
    default_cpus: float = 0.0  # 0: all cores
    default_storage_gb: int = 20
    default_pids: int = 4096
    max_ram_mb: int = field(default_factory=_host_memory_mb)
    max_cpus: float = field(default_factory=_host_cpus)
    max_storage_gb: int = 1000
    max_pids: int = 65536
    max_running: int = 0  # sprites that run at a time; 0: no limit
    creations_per_minute: int = 0  # 0: no limit
    spares: int = 1  # boxes that run already, for the next creates; each takes memory
    idle_seconds: float = 30.0  # after the last reason to be awake is gone, before a sprite goes warm
    retire_after_seconds: float = 10.0  # the same, before it does without its pilot; 0: never
    cold_after_seconds: float = 0.0  # warm for so long, then cold; 0: never
    stop_grace_seconds: float = 5.0  # between SIGTERM and SIGKILL
    reserve_bytes: int | None = None  # None: the larger of 5 % and 2 GiB of the host's file system
    database: str = ""  # an SQLAlchemy URL; empty: state.db in the data directory
    runtime: Path = Path("/run/spriggan")
