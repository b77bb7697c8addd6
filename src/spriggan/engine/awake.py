"""The only way to a running sprite: hold it awake for as long as it is needed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

from spriggan.engine.core import Core
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import Awake
from spriggan.engine.waking import Waking
from spriggan.errors import NotFound

log = logging.getLogger(__name__)

LONGEST_TICK_S = 5.0


class Keeper:
    """Keeps sprites awake while somebody holds them, and puts them to rest when nobody does."""

    def __init__(self, core: Core, waking: Waking) -> None:
        self._core = core
        self._waking = waking

    @asynccontextmanager
    async def awake(self, name: str, reason: str) -> AsyncIterator[Awake]:
        """Wake the sprite and hold it; ``reason`` is shown to people."""
        row = await self._core.row(name)
        live = self._core.lives.get(row.id)
        if live is None:
            raise NotFound("sprite not found", hint="see what there is with: spriggan list")
        self._waking.box(row).expect()
        with live.hold(reason):  # before it is awake, so that it cannot fall asleep in between
            yield await self._core.complete(self._wake(row.id))

    def hold(self, sprite_id: str, reason: str) -> AbstractContextManager[int] | None:
        """Hold a sprite that runs, and say in which run; None if it does not, or something is done with it.

        Nothing is looked at: for whoever has a connection to a program in it, and finds out by that.
        """
        live = self._core.lives.get(sprite_id)
        if live is None or live.phase is not Phase.RUNNING or live.lock.locked() or live.unsettled:
            return None
        return self._held(live, reason)

    @contextmanager
    def _held(self, live: Live, reason: str) -> Iterator[int]:
        with live.hold(reason):
            yield live.run

    async def run(self) -> None:
        """The idle clock, for as long as the engine runs."""
        options = self._core.options
        tick = min(LONGEST_TICK_S, options.idle_seconds / 3)
        for after in (options.cold_after_seconds, options.retire_after_seconds):
            tick = min(tick, after / 3 or tick)
        while True:
            await asyncio.sleep(max(tick, 0.05))
            up = [
                live
                for live in self._core.lives.values()
                if live.phase in (Phase.RUNNING, Phase.WARM) or live.spare
            ]
            looks = (self._core.complete(self._look(live)) for live in up)
            for error in await asyncio.gather(*looks, return_exceptions=True):
                if isinstance(error, Exception) and not isinstance(error, NotFound):
                    log.error("the idle clock: %s: %s", type(error).__name__, error)

    async def _wake(self, sprite_id: str) -> Awake:
        async with self._core.locked(sprite_id) as (row, live):
            awake = await self._waking.up(row, live)
            return Awake(self._core.view(awake), self._waking.box(awake).pilot_socket(awake.id), live.run)

    async def _look(self, live: Live) -> None:
        """One tick of one sprite."""
        if live.lock.locked():
            return
        async with self._core.locked(live.sprite_id) as (row, _):
            options = self._core.options
            # Asked under the lock: whoever wants the sprite meanwhile holds it before
            # waiting for the lock, and is seen below.
            await self._waking.look(row, live)
            if live.phase is Phase.RUNNING:
                if live.reasons:
                    live.busy_at = time.monotonic()
                elif time.monotonic() - live.busy_at >= options.idle_seconds:
                    await self._waking.rest(row, live)
            elif live.spare and not live.held and time.monotonic() - live.busy_at >= options.idle_seconds:
                await self._waking.discard(row, live)  # it was created and not used
            elif live.phase is Phase.WARM and not live.held:
                if 0 < options.cold_after_seconds <= time.monotonic() - live.warm_at:
                    await self._waking.down(row, live, grace=options.stop_grace_seconds)
            if self._needs_no_pilot(live):
                await self._waking.retire(row, live)

    def _needs_no_pilot(self, live: Live) -> bool:
        """Whether the sprite has done nothing for so long that its pilot may end, too."""
        if live.phase not in (Phase.RUNNING, Phase.WARM) or live.retired or live.held or live.reasons:
            return False
        quiet = time.monotonic() - max(live.busy_at, live.warm_at, live.needed_at)
        return 0 < self._core.options.retire_after_seconds <= quiet
