"""Checkpoints of a sprite. Making and restoring one answers with a stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Path, Query
from starlette.responses import StreamingResponse

from spriggan.engine import Checkpoint, Engine, Sprite
from spriggan.errors import Conflict, InvalidRequest, InvalidValue, NoSpace, SprigganError, Unavailable
from spriggan.server.errors import failures, internal_error
from spriggan.server.progress import Done, follow
from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.routing import router as bounded_router
from spriggan.server.sprites.described import NDJSON, of
from spriggan.server.sprites.models import (
    CheckpointBody,
    CheckpointReply,
    Event,
    checkpoint_reply,
    event,
    history,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

# The live disk, as an entry of the list: clients of the hosted service know it and leave it out.
CURRENT = "Current"

# Said before anything was begun, these are statuses. All else is a line of the stream, as clients expect.
REFUSALS = (InvalidRequest, InvalidValue, NoSpace, Unavailable)

router = bounded_router(prefix="/v1/sprites/{name}", tag="checkpoints")

CheckpointId = Annotated[str, Path(description="The checkpoint's id.", examples=["v1"])]

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One object a line. A failure after the start is a line of type `error`.",
        "content": {NDJSON: {"schema": of(Event)}},
    }
}


@router.post(
    "/checkpoint",
    response_class=StreamingResponse,
    responses=STREAM | failures(400, 404, 413, 422, 500, 503, 507),
    summary="Make a checkpoint",
)
async def create(engine: EngineOf, name: SpriteName, body: CheckpointBody | None = None) -> StreamingResponse:
    """Keep the disk as it is now; processes pause for some milliseconds."""
    await engine.get(name)

    async def work(progress: Callable[[str], None]) -> Checkpoint:
        return await engine.checkpoint(name, (body.comment if body else None) or "", progress)

    def last_words(checkpoint: Checkpoint) -> list[bytes]:
        # Clients find the id in these two texts, and nowhere else.
        return [
            event("info", data=f"  ID: {checkpoint.id}"),
            event("complete", data=f"Checkpoint {checkpoint.id} created successfully"),
        ]

    return await _stream(work, last_words, "Failed to create checkpoint")


@router.get("/checkpoints", responses=failures(400, 404), summary="List checkpoints")
async def list_(
    engine: EngineOf,
    name: SpriteName,
    history: Annotated[str | None, Query(description="Only this checkpoint and what came from it.")] = None,
    include_auto: Annotated[
        bool, Query(alias="includeAuto", description="Also those the server made before restores.")
    ] = False,
) -> list[CheckpointReply]:
    """The live disk as `Current`, then its checkpoints."""
    sprite, known, sources = await _known(engine, name)
    shown = [
        checkpoint_reply(checkpoint, sources)
        for checkpoint in known
        if include_auto or not checkpoint.is_auto
    ]
    entries = [_live(sprite, sources), *shown]
    if history:
        entries = [entry for entry in entries if history == entry.id or history in entry.history]
    return entries


@router.get("/checkpoints/{id}", responses=failures(404), summary="Get a checkpoint")
async def get(engine: EngineOf, name: SpriteName, id: CheckpointId) -> CheckpointReply:
    """One checkpoint, or with `Current` the live disk."""
    sprite, _, sources = await _known(engine, name)
    if id == CURRENT:
        return _live(sprite, sources)
    return checkpoint_reply(await engine.get_checkpoint(name, id), sources)


@router.delete(
    "/checkpoints/{id}", status_code=204, responses=failures(404, 409), summary="Delete a checkpoint"
)
async def delete(engine: EngineOf, name: SpriteName, id: CheckpointId) -> None:
    """Its space is free at once. The one last created or restored cannot be deleted."""
    await engine.get(name)
    if id == CURRENT:
        raise Conflict(
            "Current is the live disk, not a checkpoint", hint="delete the sprite to delete its disk"
        )
    await engine.delete_checkpoint(name, id)


@router.post(
    "/checkpoints/{id}/restore",
    response_class=StreamingResponse,
    responses=STREAM | failures(404, 500, 503, 507),
    summary="Restore a checkpoint",
)
async def restore(engine: EngineOf, name: SpriteName, id: CheckpointId) -> StreamingResponse:
    """Put the disk back. What runs ends; the disk as it was becomes an automatic checkpoint."""
    await engine.get(name)

    async def work(progress: Callable[[str], None]) -> None:
        if id == CURRENT:
            raise Conflict("Current is the live disk, there is nothing to restore", hint="name a checkpoint")
        await engine.restore(name, id, progress)

    def last_words(_: None) -> list[bytes]:
        return [event("complete", data=f"Checkpoint {id} restored successfully")]

    return await _stream(work, last_words, "Failed to restore checkpoint")


async def _known(engine: Engine, name: str) -> tuple[Sprite, list[Checkpoint], dict[str, str | None]]:
    """A sprite, all its checkpoints, and what each came from."""
    sprite = await engine.get(name)
    known = await engine.checkpoints(name, True)
    return sprite, known, {checkpoint.id: checkpoint.source_id for checkpoint in known}


def _live(sprite: Sprite, sources: dict[str, str | None]) -> CheckpointReply:
    """The live disk as an entry among checkpoints."""
    return CheckpointReply(
        id=CURRENT,
        create_time=sprite.updated_at,
        comment="",
        source_id=sprite.current_checkpoint,
        history=history(sprite.current_checkpoint, sources),
        is_auto=False,
        is_current=False,
        size=None,
    )


async def _stream(
    work: Callable[[Callable[[str], None]], Awaitable[T]],
    last_words: Callable[[T], list[bytes]],
    failed: str,
) -> StreamingResponse:
    """Answer with what ``work`` reports. Waits for its first word, which may be that it is refused."""
    reports = follow(work)
    try:
        first: str | Done[T] | SprigganError = await anext(reports)
    except REFUSALS:
        raise
    except SprigganError as error:
        first = error

    async def lines() -> AsyncIterator[bytes]:
        item = first
        try:
            while isinstance(item, str):
                yield event("info", data=item)
                item = await anext(reports)
        except SprigganError as error:
            item = error
        except Exception:
            log.exception("%s", failed)
            item = internal_error()
        if isinstance(item, Done):
            for line in last_words(item.result):
                yield line
        elif isinstance(item, SprigganError):
            yield event("error", error=f"{failed}: {item.message}", code=item.code, hint=item.hint or None)

    return StreamingResponse(lines(), media_type=NDJSON)
