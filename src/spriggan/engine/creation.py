"""How a sprite comes to be: from a spare, on a new disk, or on a clone of another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from sqlalchemy.engine import Connection

from spriggan import faults
from spriggan.engine import checkpoints, rows, values
from spriggan.engine.core import Core
from spriggan.engine.draft import draft, new_id
from spriggan.engine.limits import CreationRate
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import URL_SETTINGS_DEFAULT, CreateRequest, Intent, Sprite, SpriteRow
from spriggan.engine.snapshots import Snapshots
from spriggan.engine.spares import Spare, Spares


class Creation:
    """``create`` and ``fork``."""

    def __init__(self, core: Core, snapshots: Snapshots, spares: Spares) -> None:
        self._core = core
        self._snapshots = snapshots
        self._spares = spares
        self.rate = CreationRate(core.options.creations_per_minute)
        core.intents.handle("create", self._settle)
        core.intents.handle("fork", self._settle)

    async def create(self, request: CreateRequest) -> Sprite:
        """A new sprite with an empty disk, cold.

        Raises ``InvalidValue``, ``AlreadyExists``, ``NotFound`` (the image), ``NoSpace`` or ``RateLimited``.
        """
        row = await draft(self._core, request)
        self.rate.take()
        self._core.host.boxes[row.box].expect()  # its first command comes next
        await asyncio.to_thread(self._core.host.reserve.check_growth, f"create {row.name}")
        return await self._core.complete(self._create(row))

    async def fork(self, name: str, new_name: str, checkpoint: str | None) -> Sprite:
        """A new sprite whose disk is a clone of another's, taken live, or of one of its checkpoints.

        It begins without checkpoints, and its URL is private until somebody says otherwise.
        """
        values.name(new_name)
        await self._core.row(name)
        self.rate.take()
        await asyncio.to_thread(self._core.host.reserve.check_growth, f"fork {name}")
        return await self._core.complete(self._fork(name, new_name, checkpoint))

    async def _create(self, row: SpriteRow) -> Sprite:
        if spare := self._spares.take(row):
            return await self._name(spare, row)
        pool = self._core.host.pool
        intent, live = await self._begin("create", row, {})
        async with live.lock, self._core.intents.under_way(live):
            faults.point("create:intent")
            await asyncio.to_thread(pool.create_disk, row.id, row.config.storage_gb)
            faults.point("create:disk")
            sprite = await self._done(row, live, intent)
            faults.point("create:done")
            return sprite

    async def _name(self, spare: Spare, row: SpriteRow) -> Sprite:
        """Make a spare the sprite of ``row``. The disk is there, so this is a change of one step."""
        faults.point("create:spare")
        row, live = replace(row, id=spare.row.id), spare.live
        async with live.lock:
            self._core.lives[row.id] = live
            try:
                await self._core.store.run(lambda tx: rows.insert_sprite(tx, row))
            except BaseException:
                del self._core.lives[row.id]
                self._spares.put_back(spare)
                raise
            faults.point("create:done")
            live.move(Phase.COLD)
            self._core.changes.ring()
            return self._core.view(row)

    async def _fork(self, name: str, new_name: str, checkpoint: str | None) -> Sprite:
        core = self._core
        async with core.exclusively(name) as (source, source_live):
            core.host.boxes[source.box].expect()
            if checkpoint is not None:
                await checkpoints.find(core, source, checkpoint)
            now = rows.now()
            row = SpriteRow(
                id=new_id(),
                name=new_name,
                created_at=now,
                updated_at=now,
                image=source.image,
                layers=source.layers,
                user=source.user,
                shell=source.shell,
                image_environment=source.image_environment,
                working_dir=source.working_dir,
                box=source.box,
                config=source.config,
                labels=source.labels,
                environment=source.environment,
                url_settings=dict(URL_SETTINGS_DEFAULT),
                policies=source.policies,
            )
            intent, live = await self._begin("fork", row, {"source": source.id, "checkpoint": checkpoint})
            # Nobody holds the new sprite's lock and wants the source's, so two locks are safe.
            async with live.lock, core.intents.under_way(live):
                faults.point("fork:intent")
                pool = core.host.pool
                if checkpoint is None:
                    await self._snapshots.take(source, source_live, pool.disk_dir(row.id), read_only=False)
                else:
                    kept = pool.checkpoint_dir(source.id, checkpoint)
                    await asyncio.to_thread(pool.clone_disk, kept, row.id)
                faults.point("fork:disk")
                sprite = await self._done(row, live, intent)
                faults.point("fork:done")
                return sprite

    async def _begin(self, kind: str, row: SpriteRow, details: dict[str, str | None]) -> tuple[Intent, Live]:
        """Take the name and write down what is coming, in one transaction."""

        def work(tx: Connection) -> Intent:
            rows.insert_sprite(tx, row)
            return rows.open_intent(tx, kind, row.id, row.name, dict(details))

        live = self._core.lives[row.id] = Live(row.id, Phase.CREATING)
        live.unsettled = True
        try:
            return await self._core.store.run(work), live
        except BaseException:
            del self._core.lives[row.id]
            raise

    async def _done(self, row: SpriteRow, live: Live, intent: Intent) -> Sprite:
        await self._core.store.run(lambda tx: rows.close_intent(tx, intent))
        live.move(Phase.COLD)
        self._core.changes.ring()
        return self._core.view(row)

    async def _settle(self, intent: Intent, live: Live) -> str:
        """Undo. Nobody was told that the sprite exists, and its disk may be half made."""
        pool = self._core.host.pool
        await asyncio.to_thread(pool.retire, pool.disk_dir(intent.sprite_id))

        def work(tx: Connection) -> None:
            rows.delete_sprite(tx, intent.sprite_id)
            rows.close_intent(tx, intent)

        await self._core.store.run(work)
        self._core.lives.pop(intent.sprite_id, None)
        live.move(Phase.DESTROYING)
        return f"undid {intent.kind} of {intent.sprite_name}: it was not complete"
