"""How a sprite comes to be: on a new disk, or on a clone of another's."""

from __future__ import annotations

import asyncio
import uuid

from sqlalchemy.engine import Connection

from spriggan import faults
from spriggan.engine import checkpoints, rows, values
from spriggan.engine.core import Core
from spriggan.engine.limits import CreationRate
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import URL_SETTINGS_DEFAULT, CreateRequest, Intent, Sprite, SpriteRow
from spriggan.engine.snapshots import Snapshots
from spriggan.errors import InvalidValue


class Creation:
    """``create`` and ``fork``."""

    def __init__(self, core: Core, snapshots: Snapshots) -> None:
        self._core = core
        self._snapshots = snapshots
        self.rate = CreationRate(core.options.creations_per_minute)
        core.intents.handle("create", self._settle)
        core.intents.handle("fork", self._settle)

    async def create(self, request: CreateRequest) -> Sprite:
        """A new sprite with an empty disk, cold.

        Raises ``InvalidValue``, ``AlreadyExists``, ``NotFound`` (the image), ``NoSpace`` or ``RateLimited``.
        """
        row = await self._new_row(request)
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

    async def _new_row(self, request: CreateRequest) -> SpriteRow:
        options, host, now = self._core.options, self._core.host, rows.now()
        name = values.name(request.name)
        box = values.box(request.box, options, tuple(host.boxes))
        config = values.config(request.config, options)
        labels = values.labels(request.labels)
        environment = values.environment(request.environment)
        url_settings = values.url_settings(request.url_settings, URL_SETTINGS_DEFAULT)
        wanted = options.default_image if request.image is None else request.image
        if not isinstance(wanted, str):
            raise InvalidValue("image must be a name", hint="see what there is with: spriggan image list")
        image = await asyncio.to_thread(host.images.get, wanted)
        return SpriteRow(
            id=f"sprite-{uuid.uuid4()}",
            name=name,
            created_at=now,
            updated_at=now,
            image=image.name,
            layers=image.digests,
            user=image.user,
            shell=image.shell,
            image_environment=dict(image.environment),
            working_dir=image.working_dir,
            box=box,
            config=config,
            labels=labels,
            environment=environment,
            url_settings=url_settings,
        )

    async def _create(self, row: SpriteRow) -> Sprite:
        pool = self._core.host.pool
        intent, live = await self._begin("create", row, {})
        async with live.lock, self._core.intents.under_way(live):
            faults.point("create:intent")
            await asyncio.to_thread(pool.create_disk, row.id, row.config.storage_gb)
            faults.point("create:disk")
            sprite = await self._done(row, live, intent)
            faults.point("create:done")
            return sprite

    async def _fork(self, name: str, new_name: str, checkpoint: str | None) -> Sprite:
        core = self._core
        async with core.exclusively(name) as (source, source_live):
            core.host.boxes[source.box].expect()
            if checkpoint is not None:
                await checkpoints.find(core, source, checkpoint)
            now = rows.now()
            row = SpriteRow(
                id=f"sprite-{uuid.uuid4()}",
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
