"""What a start does before anybody is served: find what runs, end what was half done, clean up.

Only objects that carry this instance's id, or lie in its data directory, are looked at.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Collection

from spriggan import faults
from spriggan.box.box import Box, State
from spriggan.engine import rows
from spriggan.engine.core import Core
from spriggan.engine.live import Live, Phase
from spriggan.engine.policies import Policies
from spriggan.engine.records import SpriteRow
from spriggan.engine.tokens import hashed
from spriggan.engine.waking import Waking, slot_of
from spriggan.errors import SprigganError
from spriggan.net import addresses

log = logging.getLogger(__name__)


class Recovery:
    """One run of it; ``report`` has a line for everything that was found amiss."""

    def __init__(self, core: Core, waking: Waking, policies: Policies) -> None:
        self._core = core
        self._waking = waking
        self._policies = policies
        self.report: list[str] = []
        self._spares: set[str] = set()  # of the server before

    async def run(self) -> None:
        """The data directory is locked, its store and its pool are open."""
        known = {row.id: row for row in await self._core.store.run(rows.sprites)}
        self._core.lives.update({sprite_id: Live(sprite_id) for sprite_id in known})
        await self._find_boxes(known)
        faults.point("recovery:found")
        await self._settle()
        faults.point("recovery:settled")
        await self._look()
        await self._remove_orphans()

    async def _find_boxes(self, known: dict[str, SpriteRow]) -> None:
        found: dict[str, Box] = {}
        for box in self._core.host.boxes.values():
            found.update(dict.fromkeys(await asyncio.to_thread(box.list), box))
        for sprite_id, box in found.items():
            try:
                if sprite_id in known:
                    await self._adopt(known[sprite_id], self._core.lives[sprite_id], box)
                else:
                    await self._stop_unknown(sprite_id, box)
            except (SprigganError, OSError) as error:
                await self._pass_over(sprite_id, error)
        for row in known.values():
            if row.status != "cold" and row.id not in found:
                why = "all its processes ended while no server was running"
                self._core.lives[row.id].lost = why
                await self._core.update(row.id, status="cold", last_error=why)
                self._say(f"{row.name} is cold: {why}")

    async def _stop_unknown(self, sprite_id: str, box: Box) -> None:
        spec = await asyncio.to_thread(box.spec, sprite_id)
        await box.stop(sprite_id, grace=0)
        if spec is not None and spec.is_spare:
            self._spares.add(sprite_id)
        else:
            self._say(f"stopped {sprite_id}, which no record knows")

    async def _adopt(self, row: SpriteRow, live: Live, box: Box) -> None:
        spec = await asyncio.to_thread(box.spec, row.id)
        state = await asyncio.to_thread(box.state, row.id)
        if spec is None or state in (State.GONE, State.ENDED) or spec.is_spare:
            await box.stop(row.id, grace=0)
            if row.status != "cold":
                why = live.lost = "its processes ended while no server was running"
                await self._core.update(row.id, status="cold", last_error=why)
                self._say(f"{row.name} is cold: {why}")
            return
        live.slot = slot_of(spec)
        live.busy_at = live.warm_at = time.monotonic()
        live.move(Phase.WAKING)
        live.move(Phase.RUNNING)
        live.retired = state is State.RETIRED
        if spec.capability:
            self._core.capabilities.know(row.id, hashed(spec.capability))
        if state is State.NO_PILOT:
            self._say(f"{row.name}: {await self._waking.revive(row, live)}")
            if live.phase is not Phase.RUNNING:
                return
        try:
            if await self._policies.catch_up(row, live, spec):
                self._say(f"{row.name}: its policies of last are in force now")
        except SprigganError as error:
            self._say(f"{row.name}: its policies are not in force: {error.message}")
        if await asyncio.to_thread(box.frozen, row.id):
            live.move(Phase.WARM)
        await self._core.update(row.id, status=live.status)

    async def _settle(self) -> None:
        for intent in await self._core.store.run(rows.intents):
            # A create or destroy whose row is gone has no sprite in memory, and still its disk to remove.
            live = self._core.lives.get(intent.sprite_id) or Live(intent.sprite_id)
            async with live.lock:
                try:
                    for line in await self._core.intents.settle(live):
                        self.report.append(line)
                        # Whoever asked for it has got no answer.
                        await self._note(intent.sprite_id, f"the server died; the next one {line}")
                except (SprigganError, OSError) as error:
                    # One sprite that cannot be put in order must not keep the others down.
                    live.unsettled = True
                    why = f"{intent.kind} of {intent.sprite_name} could not be finished or undone: {error}"
                    self._say(why)
                    await self._note(intent.sprite_id, why)

    async def _look(self) -> None:
        """A pilot lives on without its container if the server died while it stopped one."""

        async def look(live: Live) -> None:
            async with self._core.locked(live.sprite_id) as (row, _):
                try:
                    await self._waking.look(row, live)
                except (SprigganError, OSError) as error:
                    await self._pass_over(row.id, error)
                if live.phase is Phase.COLD:
                    self._say(f"{row.name} is cold: its processes had ended")

        running = [live for live in self._core.lives.values() if live.phase is Phase.RUNNING]
        await asyncio.gather(*(look(live) for live in running if not live.unsettled))

    async def _pass_over(self, sprite_id: str, error: Exception) -> None:
        """One sprite that cannot be put in order must not keep the others down; its next use tries again."""
        why = f"it could not be put in order after a start of the server: {error}"
        self._say(f"{sprite_id}: {why}")
        await self._note(sprite_id, why)

    async def _note(self, sprite_id: str, why: str) -> None:
        await self._core.store.run(lambda tx: rows.update_sprite(tx, sprite_id, last_error=why))

    async def _remove_orphans(self) -> None:
        host, known = self._core.host, self._core.lives
        checkpoints = await self._core.store.run(rows.all_checkpoints)
        if not await self._core.store.run(rows.intents):
            # With an intent still open, what looks like an orphan may be one of its disks.
            for path in await asyncio.to_thread(host.pool.orphans, set(known), checkpoints):
                await asyncio.to_thread(host.pool.retire, path)
                if path.name in self._spares:
                    continue  # nobody's, and nothing is lost with it
                self._say(f"removed {path.relative_to(host.pool.root)} from the pool, which no record knows")
        await self._remove_links()
        await asyncio.to_thread(self._remove_spools, known)

    async def _remove_links(self) -> None:
        used = {live.slot for live in self._core.lives.values()}
        blocks = self._core.host.claims.blocks
        for slot in await asyncio.to_thread(self._core.host.uplinks.list_links):
            # Link names hold half of the instance's id only; the claim of the slot's block is exact.
            if slot not in used and slot // addresses.BLOCK in blocks:
                await asyncio.to_thread(self._core.host.uplinks.remove, slot)

    def _remove_spools(self, known: Collection[str]) -> None:
        spool = self._core.data / "spool"
        for path in spool.iterdir() if spool.is_dir() else ():
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _say(self, line: str) -> None:
        log.warning("%s", line)
        self.report.append(line)
