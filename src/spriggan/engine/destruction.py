"""How a sprite ends for good."""

from __future__ import annotations

import asyncio
import shutil

from sqlalchemy.engine import Connection

from spriggan import faults
from spriggan.engine import rows
from spriggan.engine.core import Core
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import Intent
from spriggan.engine.waking import Waking


class Destruction:
    """``destroy``: once written down it is always finished, never undone."""

    def __init__(self, core: Core, waking: Waking) -> None:
        self._core = core
        self._waking = waking
        core.intents.handle("destroy", self._settle)

    async def destroy(self, name: str) -> None:
        """Processes, disk, checkpoints and records are gone when this returns."""
        await self._core.row(name)
        await self._core.complete(self._destroy(name))

    async def _destroy(self, name: str) -> None:
        core = self._core
        async with core.exclusively(name) as (row, live):
            intent = await core.store.run(lambda tx: rows.open_intent(tx, "destroy", row.id, row.name, {}))
            async with core.intents.under_way(live):
                faults.point("destroy:intent")
                await self._finish(intent, live)
        core.spawn(asyncio.to_thread(core.host.pool.empty_trash))

    async def _settle(self, intent: Intent, live: Live) -> str:
        await self._finish(intent, live)
        return f"finished destroy of {intent.sprite_name}"

    async def _finish(self, intent: Intent, live: Live) -> None:
        """The steps; each can be done again."""
        core, sprite_id = self._core, intent.sprite_id
        row = await core.store.run(lambda tx: rows.sprite(tx, sprite_id))
        if row is not None:
            await self._waking.down(row, live, grace=0)
        live.move(Phase.DESTROYING)
        faults.point("destroy:stop")
        await asyncio.to_thread(core.host.pool.retire_sprite, sprite_id)
        faults.point("destroy:disk")
        await asyncio.to_thread(shutil.rmtree, core.data / "spool" / sprite_id, ignore_errors=True)
        faults.point("destroy:files")

        def work(tx: Connection) -> None:
            rows.delete_sprite(tx, sprite_id)
            rows.close_intent(tx, intent)

        await core.store.run(work)
        core.lives.pop(sprite_id, None)
        core.changes.ring()
        faults.point("destroy:done")
