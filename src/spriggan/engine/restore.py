"""Restore: put a checkpoint's clone in the place of a sprite's disk.

The old disk stays at hand until the new one is known to run, and the exchange of the two
is one step, so there is no moment without a disk. Which of the two is in place, and so
whether a half-done restore is finished or undone, tells the id of the subvolume.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from sqlalchemy.engine import Connection

from spriggan import faults
from spriggan.disk import usage
from spriggan.engine import numbering, rows
from spriggan.engine.checkpoints import Progress, find
from spriggan.engine.core import Core
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import Checkpoint, Intent, SpriteRow
from spriggan.engine.waking import Waking
from spriggan.errors import Broken, NoSpace, SprigganError


class Restore:
    """``restore``, and what is left of one that was interrupted."""

    def __init__(self, core: Core, waking: Waking) -> None:
        self._core = core
        self._waking = waking
        core.intents.handle("restore", self._settle)

    async def restore(self, name: str, checkpoint_id: str, progress: Progress) -> None:
        """Bring back a checkpoint. What runs ends; the disk as it was becomes an automatic checkpoint."""
        await find(self._core, await self._core.row(name), checkpoint_id)
        await self._core.complete(self._restore(name, checkpoint_id, progress))

    async def _restore(self, name: str, checkpoint_id: str, progress: Progress) -> None:
        core = self._core
        async with core.exclusively(name) as (row, live):
            await find(core, row, checkpoint_id)
            if live.phase is Phase.PAUSED:
                raise NoSpace(live.paused_because, hint="free space first, or stop the sprite")
            await self._waking.attend(row, live)
            await self._waking.discard(row, live)
            self._waking.box(row).expect()
            known = await core.store.run(lambda tx: rows.checkpoints(tx, row.id))
            details = {
                "checkpoint": checkpoint_id,
                "automatic": numbering.automatic(int(time.time() * 1000), (k.id for k in known)),
                "source": row.current_checkpoint,
                "running": live.slot is not None,
                "stopping": False,
                "subvolume": None,
            }
            intent = await core.store.run(
                lambda tx: rows.open_intent(tx, "restore", row.id, row.name, details)
            )
            async with core.intents.under_way(live):
                faults.point("restore:intent")
                progress(f"Restoring {checkpoint_id} of {name}")
                await self._steps(row, live, intent, progress)
        core.spawn(asyncio.to_thread(core.host.pool.empty_trash))

    async def _steps(self, row: SpriteRow, live: Live, intent: Intent, progress: Progress) -> None:
        core, pool = self._core, self._core.host.pool
        running = intent.details["running"]
        subvolume = await asyncio.to_thread(pool.prepare_swap, row.id, intent.details["checkpoint"])
        faults.point("restore:cloned")
        intent = await core.intents.note(intent, subvolume=subvolume, stopping=running)
        faults.point("restore:prepared")
        if running:
            progress("Stopping what runs")
            if live.phase is Phase.WARM:  # a frozen process cannot end
                await asyncio.to_thread(self._waking.box(row).thaw, row.id)
            live.move(Phase.RESTORING)
            await self._waking.box(row).stop_inner(row.id, grace=core.options.stop_grace_seconds)
            faults.point("restore:stopped")
        kept = pool.checkpoint_dir(row.id, intent.details["automatic"])
        await asyncio.to_thread(pool.snapshot, row.id, kept, None, read_only=True)
        faults.point("restore:kept")
        await asyncio.to_thread(pool.swap, row.id)
        faults.point("restore:swapped")
        if running:
            progress("Starting from the restored disk")
            try:
                await self._waking.box(row).start_inner(row.id)
            except (SprigganError, OSError) as error:
                # With the old disk in place the restore is one to undo, which starts the sprite again.
                with contextlib.suppress(SprigganError, OSError):
                    await self._waking.box(row).stop_inner(row.id, grace=0)
                await asyncio.to_thread(pool.swap, row.id)
                faults.point("restore:back")
                raise Broken(
                    f"the restored disk does not start: {error}",
                    hint="the sprite is back on the disk it had; try another checkpoint",
                ) from error
        faults.point("restore:started")
        await self._finish(intent)
        live.busy_at = time.monotonic()
        if running:
            live.move(Phase.RUNNING)
            await core.update(row.id, status=live.status, last_running_at=rows.now(), last_error=None)
        faults.point("restore:done")

    async def _settle(self, intent: Intent, live: Live) -> str:
        """Finish if the restored disk is in place, else undo; either way let the sprite run if it ran."""
        pool, sprite_id = self._core.host.pool, intent.sprite_id
        what = f"restore of {intent.sprite_name} to {intent.details['checkpoint']}"
        in_place = await asyncio.to_thread(pool.subvolume_id, pool.disk_dir(sprite_id))
        finish = intent.details["subvolume"] is not None and in_place == intent.details["subvolume"]
        row = await self._core.store.run(lambda tx: rows.sprite(tx, sprite_id))
        lost = None
        if row is not None and intent.details["stopping"] and live.slot is not None:
            lost = await self._start_again(row, live)
        if finish:
            await self._finish(intent)
        else:
            await self._undo(intent)
        line = f"finished {what}" if finish else f"undid {what}: the old disk is in place"
        return f"{line}; it is cold now: {lost}" if lost else line

    async def _start_again(self, row: SpriteRow, live: Live) -> str | None:
        """Start the user's world from the disk that is in place; why the sprite is cold, if that fails."""
        box = self._waking.box(row)
        lost = await self._waking.attend(row, live)
        if live.phase is Phase.COLD:
            return lost
        try:
            if live.phase is Phase.WARM:
                await asyncio.to_thread(box.thaw, row.id)
            if live.phase is not Phase.RESTORING:
                live.move(Phase.RESTORING)
            await box.stop_inner(row.id, grace=self._core.options.stop_grace_seconds)
            await box.start_inner(row.id)
        except (SprigganError, OSError) as error:
            return await self._waking.lose(row, live, f"it did not start after a restore: {error}")
        live.move(Phase.RUNNING)
        live.busy_at = time.monotonic()
        await self._core.update(row.id, status=live.status)
        return None

    async def _finish(self, intent: Intent) -> None:
        """The records follow the disks. Can be done again."""
        core, pool, sprite_id = self._core, self._core.host.pool, intent.sprite_id
        restored, automatic = intent.details["checkpoint"], intent.details["automatic"]
        kept = Checkpoint(
            sprite_id=sprite_id,
            id=automatic,
            create_time=rows.now(),
            comment=f"before restoring {restored}",
            source_id=intent.details["source"],
            is_auto=True,
            size=await asyncio.to_thread(
                usage.allocated, pool.checkpoint_dir(sprite_id, automatic) / "disk.img"
            ),
        )
        await asyncio.to_thread(pool.finish_swap, sprite_id)
        faults.point("restore:retired")

        def work(tx: Connection) -> list[str]:
            rows.insert_checkpoint(tx, kept)
            rows.update_sprite(tx, sprite_id, current_checkpoint=restored)
            rows.close_intent(tx, intent)
            surplus = numbering.surplus((known.id for known in rows.checkpoints(tx, sprite_id)), restored)
            for old in surplus:
                rows.delete_checkpoint(tx, sprite_id, old)
            return surplus

        surplus = await core.store.run(work)
        faults.point("restore:recorded")
        for old in surplus:
            # A crash before this leaves a disk that nobody knows, which the next start removes.
            await asyncio.to_thread(pool.retire, pool.checkpoint_dir(sprite_id, old))

    async def _undo(self, intent: Intent) -> None:
        pool, sprite_id = self._core.host.pool, intent.sprite_id
        await asyncio.to_thread(pool.finish_swap, sprite_id)
        await asyncio.to_thread(pool.retire, pool.checkpoint_dir(sprite_id, intent.details["automatic"]))
        await self._core.store.run(lambda tx: rows.close_intent(tx, intent))
