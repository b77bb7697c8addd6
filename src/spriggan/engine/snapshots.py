"""Cloning a sprite's disk while the sprite may be using it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from spriggan.engine.core import Core
from spriggan.engine.live import Live
from spriggan.engine.records import SpriteRow


class Snapshots:
    """Takes snapshots of disks for checkpoints and forks."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def take(self, row: SpriteRow, live: Live, destination: Path, *, read_only: bool) -> None:
        """Snapshot the disk of ``row``, its lock held, to ``destination``; durable on return.

        A disk in use is flushed first; nobody who writes to it is stopped.
        """
        pool = self._core.host.pool
        if destination.exists():  # of an attempt whose end nobody saw
            await asyncio.to_thread(pool.retire, destination)
        if live.slot is None:
            await asyncio.to_thread(pool.snapshot, row.id, destination, None, read_only=read_only)
            return
        mount = await asyncio.to_thread(self._core.host.boxes[row.box].disk_fd, row.id)
        try:
            await asyncio.to_thread(pool.snapshot, row.id, destination, mount, read_only=read_only)
        finally:
            os.close(mount)
