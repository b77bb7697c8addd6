"""Spares: boxes that run already around blank disks, for the next creates.

A spare is a sprite but for a name: it has an id, a disk, a slot and a running container, but no record
and no pilot, and nobody sees it. A create that asks for what most ask for takes it, and the first wake
only has to name it. One that a server has left behind is removed by the next, as no record knows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from spriggan import faults
from spriggan.engine.core import Core
from spriggan.engine.draft import draft
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import CreateRequest, SpriteRow
from spriggan.engine.waking import Waking
from spriggan.errors import NotFound

log = logging.getLogger(__name__)

QUIET_S = 0.2  # nothing is done for that long before a spare is made: it takes a processor for as long
ROUND_S = 10.0  # between two looks at whether spares are still what a create would take
PAUSES_S = (1.0, 300.0)  # after a failure, and after many of them


@dataclass(frozen=True)
class Spare:
    """What a create takes: ``row`` is in no store and has no name, ``live`` is not among the sprites'."""

    row: SpriteRow
    live: Live


class Spares:
    """Keeps as many as the options say, from ``run`` on and until ``close``."""

    def __init__(self, core: Core, waking: Waking) -> None:
        self._core = core
        self._waking = waking
        self._ready: list[Spare] = []
        self._missing = asyncio.Event()
        self._changing = asyncio.Lock()

    @property
    def ids(self) -> set[str]:
        """Whose disks are nobody's business."""
        return {spare.row.id for spare in self._ready}

    def take(self, row: SpriteRow) -> Spare | None:
        """A spare that can become the sprite of ``row``; it is the caller's from now on, or to be put back."""
        for spare in self._ready:
            if _kind(spare.row) == _kind(row):
                self._ready.remove(spare)
                self._missing.set()
                spare.live.busy_at = time.monotonic()
                return spare
        return None

    def put_back(self, spare: Spare) -> None:
        self._ready.append(spare)

    @asynccontextmanager
    async def none(self) -> AsyncIterator[None]:
        """There is no spare for as long as the block lasts."""
        async with self._changing:
            await self._give_up_all()
            yield
        self._missing.set()

    async def run(self) -> None:
        """Keep them, for as long as the engine runs."""
        pause, longest = PAUSES_S
        failed = False
        while True:
            try:
                self._missing.clear()
                while await self._core.complete(self._sort_out()):
                    await self._quiet()
                    await self._core.complete(self._make())
            except Exception as error:
                if not failed:  # once, and not at every try
                    log.warning("no spare could be made: %s", error)
                failed = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            pause, failed = PAUSES_S[0], False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_S):
                    await self._missing.wait()

    async def close(self) -> None:
        """Remove them; ``run`` has ended."""
        async with self._changing:
            await self._give_up_all()

    async def _quiet(self) -> None:
        while (left := QUIET_S - self._core.quiet_seconds) > 0:  # noqa: ASYNC110 - the time moves
            await asyncio.sleep(left)

    async def _sort_out(self) -> bool:
        """Give up those that are no use; whether any are missing, and may be made."""
        async with self._changing:
            model = await self._model()
            if model is None or await asyncio.to_thread(self._core.host.reserve.pressure) != "ok":
                await self._give_up_all()
                return False
            for spare in [spare for spare in self._ready if _kind(spare.row) != _kind(model)]:
                await self._give_up(spare)
            return len(self._ready) < self._core.options.spares

    async def _model(self) -> SpriteRow | None:
        """The record of the sprite that is asked for when nothing is said; None if there is no image."""
        with contextlib.suppress(NotFound):
            return await draft(self._core, CreateRequest(name="spare"))
        return None

    async def _make(self) -> None:
        async with self._changing:
            model = await self._model()
            if model is None:
                return
            row = replace(model, name="")
            spare = Spare(row, Live(row.id, Phase.CREATING))
            try:
                pool = self._core.host.pool
                await asyncio.to_thread(pool.create_disk, row.id, row.config.storage_gb)
                faults.point("spare:disk")
                await self._waking.put_spare(row, spare.live)
                faults.point("spare:box")
            except BaseException:
                await self._remove(spare)
                raise
            self._ready.append(spare)

    async def _give_up_all(self) -> None:
        for spare in list(self._ready):
            await self._give_up(spare)

    async def _give_up(self, spare: Spare) -> None:
        self._ready.remove(spare)  # first, so that no create takes it
        await self._remove(spare)

    async def _remove(self, spare: Spare) -> None:
        pool = self._core.host.pool
        await self._waking.discard(spare.row, spare.live)
        await asyncio.to_thread(pool.retire_sprite, spare.row.id)
        await asyncio.to_thread(pool.empty_trash)


def _kind(row: SpriteRow) -> tuple[object, ...]:
    """What a box is made for; all else of a sprite can be told to it later."""
    return row.box, row.layers, row.user, row.config
