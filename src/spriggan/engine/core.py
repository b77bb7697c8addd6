"""What every part of the engine works with: the data directory, the host, the sprites in memory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import spriggan
from spriggan.engine import rows, values
from spriggan.engine.changes import Changes
from spriggan.engine.host import Host
from spriggan.engine.intents import Intents
from spriggan.engine.live import Live, Phase
from spriggan.engine.options import Options
from spriggan.engine.records import Sprite, SpriteRow
from spriggan.engine.store import Store
from spriggan.engine.tokens import Capabilities
from spriggan.errors import NotFound

log = logging.getLogger(__name__)

T = TypeVar("T")


class Core:
    """Shared by the parts of one engine."""

    def __init__(self, data: Path, options: Options, host: Host, store: Store) -> None:
        self.data = data
        self.options = options
        self.host = host
        self.store = store
        self.intents = Intents(store)
        self.capabilities = Capabilities()
        self.changes = Changes()
        self.lives: dict[str, Live] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._busy_at = 0.0

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end even if the caller goes away: a change is never left half done."""
        return await asyncio.shield(self.spawn(work))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` beside the caller; ``finished`` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    @property
    def quiet_seconds(self) -> float:
        """For how long nothing has been under way."""
        return 0.0 if self._tasks else time.monotonic() - self._busy_at

    async def finished(self) -> None:
        """Wait until nothing that was begun is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def row(self, name: str, *, anew: bool = False) -> SpriteRow:
        """The sprite of that name, or ``NotFound``. ``anew``: the store is asked in any case."""
        row = None
        if values.is_name(name):
            row = await self.store.read(rows.sprite_by_name, name, anew=anew)
        if row is None:
            raise _not_found()
        return row

    @asynccontextmanager
    async def exclusively(self, name: str) -> AsyncIterator[tuple[SpriteRow, Live]]:
        """The sprite of that name, locked; ``NotFound`` if there is none."""
        row = await self.row(name)
        async with self.locked(row.id) as locked:
            yield locked

    @asynccontextmanager
    async def locked(self, sprite_id: str) -> AsyncIterator[tuple[SpriteRow, Live]]:
        """A sprite with its lock held, and nothing about it left half done."""
        live = self.lives.get(sprite_id)
        if live is None:
            raise _not_found()
        async with live.lock:
            if live.unsettled:
                await self.intents.settle(live)
            row = await self.store.read(rows.sprite, sprite_id)
            if row is None:  # destroyed, or its creation undone, while we waited
                raise _not_found()
            yield row, live

    async def update(self, sprite_id: str, **values: Any) -> SpriteRow:
        """Change columns of a sprite's row and return what it is then."""

        def work(tx: Any) -> SpriteRow | None:
            rows.update_sprite(tx, sprite_id, **values)
            return rows.sprite(tx, sprite_id)

        row = await self.store.run(work)
        if row is None:
            raise _not_found()
        self.changes.ring()
        return row

    def view(self, row: SpriteRow) -> Sprite:
        """A sprite as clients see it."""
        live = self.lives.get(row.id) or Live(row.id, Phase.DESTROYING)
        return Sprite(
            id=row.id,
            name=row.name,
            organization=self.options.organization,
            status=live.status,
            phase=live.phase.value,
            created_at=row.created_at,
            updated_at=row.updated_at,
            last_running_at=row.last_running_at,
            last_warming_at=row.last_warming_at,
            labels=row.labels,
            environment=row.environment,
            url_settings=row.url_settings,
            config=asdict(row.config),
            image=row.image,
            box=row.box,
            version=spriggan.__version__,
            environment_version=row.layers[0][:12] if row.layers else "",
            last_error=live.paused_because or row.last_error,
            awake_because=live.reasons,
            current_checkpoint=row.current_checkpoint,
            url=self.options.url.replace("{name}", row.name) or None,
        )

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._busy_at = time.monotonic()
        if not task.cancelled() and (error := task.exception()):
            # Whoever waits gets it too; but the caller may be gone, and then this is its only trace.
            log.info("an operation failed: %s: %s", type(error).__name__, error)


def _not_found() -> NotFound:
    return NotFound("sprite not found", hint="see what there is with: spriggan list")
