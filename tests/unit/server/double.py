"""An engine in memory with a real pilot socket, so that the server is tested without sprites."""

from __future__ import annotations

import builtins
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from spriggan.disk import Usage
from spriggan.engine import Awake, Checkpoint, CreateRequest, Sprite
from spriggan.engine.options import Options
from spriggan.engine.records import TokenInfo
from spriggan.engine.values import is_name
from spriggan.errors import AlreadyExists, Broken, Conflict, InvalidValue, NoSpace, NotFound
from spriggan.image import Image, Layer

TOKEN = "spriggan/1/t1/secret"
CAPABILITY = "capability-of-"


def now() -> datetime:
    return datetime.now(UTC)


IMAGE = Image(
    name="default",
    created="2026-01-01T00:00:00Z",
    distribution="debian bookworm",
    layers=(Layer(digest="0" * 64, stage="base", bytes=5, key="1"),),
    user="sprite",
    shell="/bin/zsh",
    environment={"LANG": "C.UTF-8"},
)
USAGE = Usage(
    host_total=9,
    host_free=5,
    pool_size=8,
    pool_allocated=4,
    pool_used=3,
    metadata_free=1,
    disks={"sprite-1": 2},
    checkpoints={"sprite-1": {"v1": 2}},
)


class MemoryEngine:
    """Keeps what the real engine keeps, and holds as many sprites awake as it is asked to."""

    def __init__(self, pilot_socket: Path) -> None:
        self.options = Options(organization="unit")
        self.data = pilot_socket.parent
        self._own_pilot_socket = pilot_socket
        self.reset()

    def reset(self) -> None:
        self.recovery_report: list[str] = ["finished creating 'left-over'"]
        self.pilot_socket = self._own_pilot_socket
        self.sprites: dict[str, Sprite] = {}
        self.saved: dict[str, list[Checkpoint]] = {}
        self.tokens: dict[str, TokenInfo] = {TOKEN: TokenInfo("t1", "first", now())}
        self.awake_now: Counter[str] = Counter()
        self.run = 1  # of all sprites; 0: none runs
        self.full = False
        self.fail_checkpoints = False
        self.started = self.closed = False

    async def start(self) -> None:
        self.started = True

    async def close(self) -> None:
        self.closed = True

    async def create(self, request: CreateRequest) -> Sprite:
        if not is_name(request.name):
            raise InvalidValue("this cannot be a sprite's name", hint="use letters")
        if request.name in self.sprites:
            raise AlreadyExists(f"there is a sprite {request.name} already", hint="choose another name")
        if request.image not in (None, "default"):
            raise NotFound(f"there is no image {request.image!r}", hint="spriggan image list")
        if self.full:
            raise NoSpace("the host is nearly full", hint="delete something")
        config = {"ram_mb": 2048, "cpus": 0.0, "storage_gb": 20, "pids": 4096, **(request.config or {})}
        if config["ram_mb"] > 100_000:
            raise InvalidValue("ram_mb 999999 is outside what this server allows", hint="use 64 to 100000")
        sprite = Sprite(
            id=f"sprite-{uuid.uuid4()}",
            name=request.name,
            organization="unit",
            status="cold",
            phase="cold",
            created_at=now(),
            updated_at=now(),
            last_running_at=None,
            last_warming_at=None,
            labels=list(request.labels),
            environment=dict(request.environment),
            url_settings={"auth": "sprite", "private_access": "org_users", **request.url_settings},
            config=config,
            image="default",
            box="container",
            version="0",
            environment_version="0",
            last_error=None,
            awake_because=[],
            current_checkpoint=None,
        )
        self.sprites[request.name] = sprite
        self.saved[request.name] = []
        return sprite

    async def get(self, name: str) -> Sprite:
        if name not in self.sprites:
            raise NotFound("sprite not found", hint="spriggan list")
        return self.sprites[name]

    def remembered(self, name: str) -> Sprite | None:
        return self.sprites.get(name)

    async def list(
        self, prefix: str | None, limit: int, after: str | None
    ) -> tuple[list[Sprite], str | None]:
        names = sorted(n for n in self.sprites if n.startswith(prefix or "") and n > (after or ""))
        page = [self.sprites[name] for name in names[:limit]]
        return page, page[-1].name if len(names) > limit else None

    def creation_allowance(self) -> None:
        return None

    async def counts(self) -> dict[str, int]:
        found = Counter(sprite.status for sprite in self.sprites.values())
        return {status: found[status] for status in ("running", "warm", "cold")}

    async def update(
        self, name: str, *, labels: list[str] | None = None, url_settings: dict[str, str] | None = None
    ) -> Sprite:
        sprite = await self.get(name)
        if labels is not None:
            sprite = replace(sprite, labels=labels)
        if url_settings is not None:
            sprite = replace(sprite, url_settings={**sprite.url_settings, **url_settings})
        self.sprites[name] = sprite
        return sprite

    async def destroy(self, name: str) -> None:
        await self.get(name)
        del self.sprites[name], self.saved[name]

    async def fork(self, name: str, new_name: str, checkpoint: str | None = None) -> Sprite:
        await self.get(name)
        if checkpoint:
            await self.get_checkpoint(name, checkpoint)
        return await self.create(CreateRequest(new_name))

    async def stop(self, name: str) -> None:
        await self.get(name)
        self.sprites[name] = replace(self.sprites[name], status="cold")

    async def checkpoint(self, name: str, comment: str, progress: Callable[[str], None]) -> Checkpoint:
        if self.full:
            raise NoSpace("the host is nearly full", hint="delete something")
        progress("Creating checkpoint...")
        if self.fail_checkpoints:
            raise Broken("the disk broke", hint="try again")
        sprite = await self.get(name)
        made = Checkpoint(
            sprite_id=sprite.id,
            id=f"v{len(self.saved[name]) + 1}",
            create_time=now(),
            comment=comment,
            source_id=sprite.current_checkpoint,
            is_auto=comment == "auto",
            size=4096,
        )
        self.saved[name].append(made)
        self._make_current(name, made.id)
        return made

    async def checkpoints(self, name: str, include_auto: bool) -> list[Checkpoint]:
        sprite = await self.get(name)
        return [
            replace(known, is_current=known.id == sprite.current_checkpoint)
            for known in self.saved[name]
            if include_auto or not known.is_auto
        ]

    async def get_checkpoint(self, name: str, checkpoint_id: str) -> Checkpoint:
        for known in await self.checkpoints(name, True):
            if known.id == checkpoint_id:
                return known
        raise NotFound(f"checkpoint with path checkpoints/{checkpoint_id} not found", hint="list them")

    async def delete_checkpoint(self, name: str, checkpoint_id: str) -> None:
        if (await self.get_checkpoint(name, checkpoint_id)).is_current:
            raise Conflict("this is the current checkpoint", hint="restore another first")
        self.saved[name] = [known for known in self.saved[name] if known.id != checkpoint_id]

    async def restore(self, name: str, checkpoint_id: str, progress: Callable[[str], None]) -> None:
        await self.get_checkpoint(name, checkpoint_id)
        progress("Stopping...")
        self._make_current(name, checkpoint_id)

    def _make_current(self, name: str, checkpoint_id: str) -> None:
        self.sprites[name] = replace(self.sprites[name], current_checkpoint=checkpoint_id)

    @contextlib.asynccontextmanager
    async def awake(self, name: str, reason: str) -> AsyncIterator[Awake]:
        sprite = await self.get(name)
        self.awake_now[name] += 1
        try:
            yield Awake(sprite, self.pilot_socket, self.run)
        finally:
            self.awake_now[name] -= 1

    def hold(self, sprite_id: str, reason: str) -> AbstractContextManager[int] | None:
        known = any(sprite.id == sprite_id for sprite in self.sprites.values())
        return contextlib.nullcontext(self.run) if known and self.run else None

    async def create_token(self, label: str) -> str:
        if not label.isprintable():
            raise InvalidValue("this cannot be a token's label")
        number = f"t{len(self.tokens) + 1}"
        text = f"spriggan/1/{number}/secret"
        self.tokens[text] = TokenInfo(number, label, now())
        return text

    async def list_tokens(self) -> list[TokenInfo]:
        return list(self.tokens.values())

    async def revoke_token(self, token_id: str) -> None:
        for text, token in self.tokens.items():
            if token.id == token_id:
                del self.tokens[text]
                return
        raise NotFound("there is no token with that id", hint="spriggan token list")

    async def check_token(self, text: str) -> TokenInfo | None:
        return self.tokens.get(text)

    async def is_token_good(self, token_id: str) -> bool:
        return any(token.id == token_id for token in self.tokens.values())

    async def check_capability(self, text: str) -> str | None:
        name = text.removeprefix(CAPABILITY)
        return name if name != text and name in self.sprites else None

    async def images(self) -> builtins.list[Image]:
        return [IMAGE]

    async def pool_usage(self) -> Usage:
        return USAGE

    async def pool_trim(self) -> int:
        return 7

    async def check_growth(self, what: str) -> None:
        if self.full:
            raise NoSpace(f"There is too little space to {what}", hint="delete something")
