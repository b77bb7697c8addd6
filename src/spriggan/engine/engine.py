"""The engine: everything that can be done with sprites, in one object."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import replace
from pathlib import Path

from spriggan.disk.usage import Usage
from spriggan.engine import rows, store, values, watching
from spriggan.engine.awake import Keeper
from spriggan.engine.checkpoints import Checkpoints, Progress
from spriggan.engine.core import Core
from spriggan.engine.creation import Creation
from spriggan.engine.destruction import Destruction
from spriggan.engine.guardian import Guardian
from spriggan.engine.host import Host, this_host
from spriggan.engine.housekeeping import Housekeeping
from spriggan.engine.instance import Instance
from spriggan.engine.limits import Allowance
from spriggan.engine.live import Phase
from spriggan.engine.options import Options
from spriggan.engine.policies import Policies
from spriggan.engine.records import Awake, Checkpoint, CreateRequest, Health, Sprite, SpriteRow, TokenInfo
from spriggan.engine.recovery import Recovery
from spriggan.engine.restore import Restore
from spriggan.engine.snapshots import Snapshots
from spriggan.engine.spares import Spares
from spriggan.engine.tokens import Tokens
from spriggan.engine.waking import Waking
from spriggan.engine.writers import Writers
from spriggan.errors import Unavailable
from spriggan.image.image import Image
from spriggan.image.store import Removed

log = logging.getLogger(__name__)

MakeHost = Callable[[str, Path, Options], Host]


class Engine:
    """Sprites of one data directory, between ``start`` and ``close``."""

    def __init__(self, data: Path, options: Options, make_host: MakeHost = this_host) -> None:
        self.data = data
        self.options = options
        self.recovery_report: builtins.list[str] = []
        self._make_host = make_host
        self._instance = Instance(data)
        self._parts: _Parts | None = None
        self._loops: builtins.list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Take the data directory, bring it in order, and be ready.

        Raises ``Conflict`` if another server has it, ``MissingCapability`` if this host lacks something.
        """
        instance = await asyncio.to_thread(self._instance.open)
        try:
            await self._start(instance)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what is under way and let go of the data directory. Sprites go on running."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        if self._parts is not None:
            core = self._parts.core
            await core.finished()
            await self._parts.spares.close()
            for box in core.host.boxes.values():
                await box.close()
            await core.store.close()
            self._parts = None
        self._instance.close()

    async def _start(self, instance: str) -> None:
        host = self._make_host(instance, self.data, self.options)
        records = store.Store(self.options.database or store.sqlite_url(self.data / "state.db"))
        self._parts = parts = _Parts(Core(self.data, self.options, host, records), instance)
        await records.open()
        await asyncio.to_thread(host.claims.acquire)
        await asyncio.to_thread(host.rules.install)  # before anything of ours can send a packet
        await asyncio.to_thread(host.pool.open)
        recovery = Recovery(parts.core, parts.waking, parts.policies)
        await recovery.run()
        await parts.tokens.write_first(self.data / "token")
        self.recovery_report = recovery.report
        for blocker in await asyncio.to_thread(host.rules.forward_blockers):
            self.recovery_report.append(
                f"{blocker.who} keeps sprites from the Internet; to let them out: {blocker.fix}"
            )
        parts.core.spawn(asyncio.to_thread(host.pool.empty_trash))
        parts.core.spawn(parts.waking.prepare())
        for loop in (parts.keeper.run(), parts.guardian.run(), Housekeeping(host).run(), parts.spares.run()):
            self._loops.append(asyncio.create_task(loop))

    # Sprites

    async def create(self, request: CreateRequest) -> Sprite:
        """See ``Creation.create``."""
        return await self._ready.creation.create(request)

    async def fork(self, name: str, new_name: str, checkpoint: str | None = None) -> Sprite:
        """See ``Creation.fork``."""
        return await self._ready.creation.fork(name, new_name, checkpoint)

    async def get(self, name: str) -> Sprite:
        core = self._ready.core
        return core.view(await core.row(name, anew=True))

    def remembered(self, name: str) -> Sprite | None:
        """What ``get`` returns, if that is known without asking the store."""
        core = self._ready.core
        row = core.store.remembered(rows.sprite_by_name, name)
        return core.view(row) if row else None

    async def list(
        self, prefix: str | None = None, limit: int = 50, after: str | None = None
    ) -> tuple[builtins.list[Sprite], str | None]:
        """Sprites by name, and the name to go on after, or None at the end."""
        core = self._ready.core
        found = await core.store.run(lambda tx: rows.sprites(tx, prefix or "", limit + 1, after or ""))
        page = found[:limit]
        return [core.view(row) for row in page], page[-1].name if len(found) > limit else None

    async def counts(self) -> dict[str, int]:
        """How many sprites are running, warm and cold."""
        statuses = Counter(live.status for live in self._ready.core.lives.values())
        return {status: statuses[status] for status in ("running", "warm", "cold")}

    def watch(self, prefix: str = "", heartbeat_s: float = 15.0) -> AsyncIterator[watching.Change]:
        """See ``watching.watch``."""
        return watching.watch(self._ready.core, prefix, heartbeat_s)

    def creation_allowance(self) -> Allowance | None:
        """How many sprites may be created now; None: as many as one likes."""
        return self._ready.creation.rate.allowance()

    async def update(
        self,
        name: str,
        *,
        labels: builtins.list[str] | None = None,
        url_settings: Mapping[str, str] | None = None,
    ) -> Sprite:
        """Change what is given, keep the rest."""
        core = self._ready.core
        async with core.exclusively(name) as (row, _):
            changed: dict[str, object] = {"updated_at": rows.now()}
            if labels is not None:
                changed["labels"] = values.labels(labels)
            if url_settings is not None:
                changed["url_settings"] = values.url_settings(url_settings, row.url_settings)
            return core.view(await core.update(row.id, **changed))

    async def destroy(self, name: str) -> None:
        """See ``Destruction.destroy``."""
        await self._ready.destruction.destroy(name)

    async def stop(self, name: str) -> None:
        """To cold: the processes end, the disk stays."""
        parts = self._ready
        await parts.core.row(name)

        async def work() -> None:
            async with parts.core.exclusively(name) as (row, live):
                await parts.waking.down(row, live, grace=self.options.stop_grace_seconds)

        await parts.core.complete(work())

    async def restart(self, name: str) -> Sprite:
        """End the processes and start the sprite again, with this server's pilot."""
        parts = self._ready
        await parts.core.row(name)

        async def work() -> Sprite:
            async with parts.core.exclusively(name) as (row, live):
                await parts.waking.down(row, live, grace=self.options.stop_grace_seconds)
                return parts.core.view(await parts.waking.up(row, live))

        return await parts.core.complete(work())

    async def check(self, name: str) -> Health:
        """How the sprite is. Nothing is started or changed by looking."""
        parts = self._ready
        row = await parts.core.row(name)
        return await parts.waking.health(row, parts.core.lives.get(row.id))

    def awake(self, name: str, reason: str) -> AbstractAsyncContextManager[Awake]:
        """Wake the sprite and hold it for as long as the block lasts. See ``Keeper.awake``."""
        return self._ready.keeper.awake(name, reason)

    def hold(self, sprite_id: str, reason: str) -> AbstractContextManager[int] | None:
        """Hold the sprite if it runs anyway. See ``Keeper.hold``."""
        return self._ready.keeper.hold(sprite_id, reason)

    async def reasons(self, name: str) -> builtins.list[str]:
        """Why the sprite is awake, asked of its pilot now."""
        parts = self._ready
        row = await parts.core.row(name)
        live = parts.core.lives.get(row.id)
        return await parts.waking.reasons(row, live) if live else []

    @property
    def policies(self) -> Policies:
        """What sprites may reach, do and use."""
        return self._ready.policies

    # Checkpoints

    async def checkpoint(
        self, name: str, comment: str = "", progress: Progress = lambda line: None
    ) -> Checkpoint:
        """See ``Checkpoints.create``."""
        return await self._ready.checkpoints.create(name, comment, progress)

    async def checkpoints(self, name: str, include_auto: bool = False) -> builtins.list[Checkpoint]:
        """Oldest first."""
        return await self._ready.checkpoints.list(name, include_auto)

    async def get_checkpoint(self, name: str, checkpoint_id: str) -> Checkpoint:
        return await self._ready.checkpoints.get(name, checkpoint_id)

    async def delete_checkpoint(self, name: str, checkpoint_id: str) -> None:
        """See ``Checkpoints.delete``."""
        await self._ready.checkpoints.delete(name, checkpoint_id)

    async def restore(self, name: str, checkpoint_id: str, progress: Progress = lambda line: None) -> None:
        """See ``Restore.restore``."""
        await self._ready.restore.restore(name, checkpoint_id, progress)

    # Who may come in

    async def create_token(self, label: str = "") -> str:
        """The token's text, which is not shown again."""
        return await self._ready.tokens.create(label)

    async def list_tokens(self) -> builtins.list[TokenInfo]:
        return await self._ready.tokens.list()

    async def revoke_token(self, token_id: str) -> None:
        await self._ready.tokens.revoke(token_id)

    async def check_token(self, text: str) -> TokenInfo | None:
        """Whose token this is; None if it is none of ours."""
        return await self._ready.tokens.check(text)

    async def is_token_good(self, token_id: str) -> bool:
        """Whether the token with that id is still good, for who has shown it before."""
        return await self._ready.tokens.is_good(token_id)

    async def check_capability(self, text: str) -> str | None:
        """The name of the sprite whose pilot was given this text."""
        core = self._ready.core
        sprite_id = core.capabilities.check(text)
        if sprite_id is None:
            return None
        row = await core.store.run(lambda tx: rows.sprite(tx, sprite_id))
        return row.name if row else None

    # The host

    async def images(self) -> builtins.list[Image]:
        return await asyncio.to_thread(self._ready.core.host.images.list)

    async def remove_image(self, name: str) -> Removed:
        """Forget an image; layers that sprites are made of stay."""
        core = self._ready.core
        async with self._ready.spares.none():
            known = await core.store.run(rows.sprites)
            in_use = {digest for row in known for digest in row.layers}
            return await asyncio.to_thread(core.host.images.remove, name, in_use)

    async def check_growth(self, what: str) -> None:
        """Raise ``NoSpace`` if there is too little space to ``what``."""
        await asyncio.to_thread(self._ready.core.host.reserve.check_growth, what)

    async def pool_usage(self) -> Usage:
        usage = await asyncio.to_thread(self._ready.core.host.pool.usage)
        spares = self._ready.spares.ids
        return replace(usage, disks={key: size for key, size in usage.disks.items() if key not in spares})

    async def pool_trim(self) -> int:
        """Give back to the host what sprites have deleted, and say how many bytes that were."""
        parts = self._ready
        pool = parts.core.host.pool
        with contextlib.ExitStack() as stack:
            mounts = []
            for live in list(parts.core.lives.values()):
                if live.phase in (Phase.RUNNING, Phase.WARM, Phase.PAUSED):
                    row = await self._row(live.sprite_id)
                    if row is None:
                        continue
                    with contextlib.suppress(Exception):  # it is being stopped
                        mounts.append(await asyncio.to_thread(parts.waking.box(row).disk_fd, row.id))
                        stack.callback(os.close, mounts[-1])
            await asyncio.to_thread(pool.empty_trash)
            return await asyncio.to_thread(pool.trim, mounts)

    async def _row(self, sprite_id: str) -> SpriteRow | None:
        return await self._ready.core.store.run(lambda tx: rows.sprite(tx, sprite_id))

    @property
    def _ready(self) -> _Parts:
        if self._parts is None:
            raise Unavailable("the server is not ready", hint="try again in a moment")
        return self._parts


class _Parts:
    """The parts of a started engine."""

    def __init__(self, core: Core, instance: str) -> None:
        snapshots = Snapshots(core)
        self.core = core
        self.waking = Waking(core)
        self.keeper = Keeper(core, self.waking)
        self.spares = Spares(core, self.waking)
        self.creation = Creation(core, snapshots, self.spares)
        self.destruction = Destruction(core, self.waking)
        self.checkpoints = Checkpoints(core, snapshots)
        self.restore = Restore(core, self.waking)
        self.guardian = Guardian(core, self.waking, Writers(instance, core.host.pool))
        self.policies = Policies(core, self.waking)
        self.tokens = Tokens(core.store, core.options.organization, instance)
