"""The list of sprites as a stream that goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from starlette.responses import StreamingResponse

from spriggan.engine import Change, Engine
from spriggan.server.sprites.described import NDJSON, of
from spriggan.server.sprites.models import ChangeReply, OrganizationCounts

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of sprites, or as NDJSON one object a change (`ChangeReply`).",
        "content": {NDJSON: {"schema": of(ChangeReply)}},
    }
}


def stream(engine: Engine, prefix: str) -> StreamingResponse:
    """Every sprite whose name begins with ``prefix``, and then each one that changes."""

    async def lines() -> AsyncIterator[bytes]:
        async for change in engine.watch(prefix):
            reply = await _reply(engine, change)
            yield reply.model_dump_json(exclude_none=True).encode() + b"\n"

    return StreamingResponse(lines(), media_type=NDJSON)


async def organization(engine: Engine) -> OrganizationCounts:
    """How many sprites there are in each status."""
    limit = engine.options.max_running or None
    return OrganizationCounts(name=engine.options.organization, running_limit=limit, **await engine.counts())


async def _reply(engine: Engine, change: Change) -> ChangeReply:
    common: dict[str, Any] = {"timestamp": datetime.now(UTC), "org": await organization(engine)}
    sprite = change.sprite
    if sprite is None:
        return ChangeReply(type="heartbeat", **common)
    return ChangeReply(
        name=sprite.name,
        status=sprite.status,
        running_version=sprite.version,
        last_running_at=sprite.last_running_at,
        last_warming_at=sprite.last_warming_at,
        **common,
    )
