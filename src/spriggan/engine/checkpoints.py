"""Checkpoints of a sprite: made, listed, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sqlalchemy.engine import Connection

from spriggan import faults
from spriggan.disk import usage
from spriggan.engine import numbering, rows, values
from spriggan.engine.core import Core
from spriggan.engine.live import Live
from spriggan.engine.records import Checkpoint, Intent, SpriteRow
from spriggan.engine.snapshots import Snapshots
from spriggan.errors import Conflict, NotFound

Progress = Callable[[str], None]


class Checkpoints:
    """Everything about checkpoints but their restore."""

    def __init__(self, core: Core, snapshots: Snapshots) -> None:
        self._core = core
        self._snapshots = snapshots
        core.intents.handle("checkpoint", self._settle_create)
        core.intents.handle("delete_checkpoint", self._settle_delete)

    async def create(self, name: str, comment: str, progress: Progress) -> Checkpoint:
        """Keep the disk as it is now. Nothing that runs is stopped."""
        values.comment(comment)
        await self._core.row(name)
        await asyncio.to_thread(self._core.host.reserve.check_growth, f"checkpoint {name}")
        return await self._core.complete(self._create(name, comment, progress))

    async def list(self, name: str, include_auto: bool) -> list[Checkpoint]:
        """Oldest first."""
        row = await self._core.row(name)
        known = await self._core.store.run(lambda tx: rows.checkpoints(tx, row.id))
        return [checkpoint for checkpoint in known if include_auto or not checkpoint.is_auto]

    async def get(self, name: str, checkpoint_id: str) -> Checkpoint:
        row = await self._core.row(name)
        return await find(self._core, row, checkpoint_id)

    async def delete(self, name: str, checkpoint_id: str) -> None:
        """Its space is given back; its number is not used again. ``Conflict`` for the current one."""
        await find(self._core, await self._core.row(name), checkpoint_id)
        await self._core.complete(self._delete(name, checkpoint_id))

    async def _create(self, name: str, comment: str, progress: Progress) -> Checkpoint:
        core = self._core
        async with core.exclusively(name) as (row, live):
            checkpoint_id = numbering.numbered(row.next_checkpoint)
            details = {"checkpoint": checkpoint_id}
            intent = await core.store.run(
                lambda tx: rows.open_intent(tx, "checkpoint", row.id, row.name, details)
            )
            async with core.intents.under_way(live):
                faults.point("checkpoint:intent")
                progress(f"Creating a checkpoint of {row.name}")
                directory = core.host.pool.checkpoint_dir(row.id, checkpoint_id)
                await self._snapshots.take(row, live, directory, read_only=True)
                faults.point("checkpoint:snapshot")
                made = Checkpoint(
                    sprite_id=row.id,
                    id=checkpoint_id,
                    create_time=rows.now(),
                    comment=comment,
                    source_id=row.current_checkpoint,
                    is_auto=False,
                    size=await asyncio.to_thread(usage.allocated, directory / "disk.img"),
                    is_current=True,
                )

                def work(tx: Connection) -> None:
                    rows.insert_checkpoint(tx, made)
                    rows.update_sprite(
                        tx, row.id, current_checkpoint=made.id, next_checkpoint=row.next_checkpoint + 1
                    )
                    rows.close_intent(tx, intent)

                await core.store.run(work)
                faults.point("checkpoint:done")
        return made

    async def _settle_create(self, intent: Intent, _live: Live) -> str:
        """Undo: nobody was told of it."""
        pool, checkpoint_id = self._core.host.pool, intent.details["checkpoint"]
        await asyncio.to_thread(pool.retire, pool.checkpoint_dir(intent.sprite_id, checkpoint_id))
        await self._core.store.run(lambda tx: rows.close_intent(tx, intent))
        return f"undid checkpoint {checkpoint_id} of {intent.sprite_name}: it was not complete"

    async def _delete(self, name: str, checkpoint_id: str) -> None:
        core = self._core
        async with core.exclusively(name) as (row, live):
            found = await find(core, row, checkpoint_id)
            if found.is_current:
                raise Conflict(
                    f"{checkpoint_id} is the checkpoint that {name} is on",
                    hint="make or restore another checkpoint first",
                )
            details = {"checkpoint": checkpoint_id}
            intent = await core.store.run(
                lambda tx: rows.open_intent(tx, "delete_checkpoint", row.id, row.name, details)
            )
            async with core.intents.under_way(live):
                faults.point("delete_checkpoint:intent")
                await self._finish_delete(intent)
                faults.point("delete_checkpoint:done")
        core.spawn(asyncio.to_thread(core.host.pool.empty_trash))

    async def _settle_delete(self, intent: Intent, _live: Live) -> str:
        await self._finish_delete(intent)
        return f"finished deleting checkpoint {intent.details['checkpoint']} of {intent.sprite_name}"

    async def _finish_delete(self, intent: Intent) -> None:
        pool, checkpoint_id = self._core.host.pool, intent.details["checkpoint"]
        await asyncio.to_thread(pool.retire, pool.checkpoint_dir(intent.sprite_id, checkpoint_id))
        faults.point("delete_checkpoint:disk")

        def work(tx: Connection) -> None:
            rows.delete_checkpoint(tx, intent.sprite_id, checkpoint_id)
            rows.close_intent(tx, intent)

        await self._core.store.run(work)


async def find(core: Core, row: SpriteRow, checkpoint_id: str) -> Checkpoint:
    """A checkpoint of this sprite, or ``NotFound``. Only ids that pass here become paths."""
    found = None
    if numbering.is_checkpoint_id(checkpoint_id):
        found = await core.store.run(lambda tx: rows.checkpoint(tx, row.id, checkpoint_id))
    if found is None:
        raise NotFound(
            f"{row.name} has no checkpoint {values.shown(checkpoint_id)}",
            hint=f"see what there is with: spriggan checkpoint list -s {row.name}",
        )
    return found
