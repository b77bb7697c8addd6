"""Keeps the pool from meeting a full host: pauses the sprites that write, and says why.

That creating, forking, checkpointing and uploading are refused sooner is the business of
those who do it; they ask the same reserve.
"""

from __future__ import annotations

import asyncio
import logging

from spriggan.engine.core import Core
from spriggan.engine.live import Phase
from spriggan.engine.waking import Waking
from spriggan.engine.writers import Writers
from spriggan.errors import NotFound

log = logging.getLogger(__name__)


class Guardian:
    """Watches the reserve for as long as the engine runs."""

    def __init__(self, core: Core, waking: Waking, writers: Writers) -> None:
        self._core = core
        self._waking = waking
        self._writers = writers

    async def run(self) -> None:
        """Look as often as the fastest writer makes necessary."""
        while True:
            try:
                await self.look()
                seconds = await asyncio.to_thread(self._core.host.reserve.next_check_seconds)
            except Exception:
                log.exception("the reserve could not be looked at")
                seconds = 1.0
            await asyncio.sleep(seconds)

    async def look(self) -> None:
        """One look, and what follows from it."""
        reading = await asyncio.to_thread(self._core.host.reserve.read)
        running = self._in(Phase.RUNNING)
        if reading.pressure == "critical":
            writers = await asyncio.to_thread(self._writers.find, running)
            because = f"it writes, and {reading}"
            await asyncio.gather(*(self._core.complete(self._pause(each, because)) for each in writers))
            return
        # Looks are the closer together the less space there is: who wrote long ago is not paused.
        await asyncio.to_thread(self._writers.calm, running)
        if reading.pressure == "ok":
            paused = self._in(Phase.PAUSED)
            await asyncio.gather(*(self._core.complete(self._resume(each)) for each in paused))

    def _in(self, phase: Phase) -> list[str]:
        return [live.sprite_id for live in self._core.lives.values() if live.phase is phase]

    async def _pause(self, sprite_id: str, because: str) -> None:
        live = self._core.lives.get(sprite_id)
        if live is None or live.lock.locked():
            return  # something else is being done to it; the next look comes soon
        try:
            async with self._core.locked(sprite_id) as (row, _):
                await self._waking.pause(row, live, because)
        except NotFound:
            return
        log.warning("%s is paused: %s", row.name, because)

    async def _resume(self, sprite_id: str) -> None:
        try:
            async with self._core.locked(sprite_id) as (row, live):
                await self._waking.unpause(row, live)
        except NotFound:
            return
        log.warning("%s goes on: there is space again", row.name)
