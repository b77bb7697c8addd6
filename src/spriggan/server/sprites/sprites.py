"""Sprites: create, look at, change, fork, stop and delete."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Query

from spriggan.engine import CreateRequest
from spriggan.errors import InvalidRequest
from spriggan.server.errors import failures
from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.routing import router as bounded_router
from spriggan.server.sprites.models import (
    CreateBody,
    ForkBody,
    OrganizationCounts,
    SpriteList,
    SpriteReply,
    UpdateBody,
    sprite_reply,
)

MAX_PAGE = 50

router = bounded_router(prefix="/v1/sprites", tag="sprites")


@router.post(
    "", status_code=201, responses=failures(400, 404, 409, 413, 422, 503, 507), summary="Create a sprite"
)
async def create(engine: EngineOf, body: CreateBody) -> SpriteReply:
    """A new sprite is cold; its first use starts it."""
    request = CreateRequest(
        name=body.name,
        image=body.image,
        box=body.box,
        config=body.config.model_dump(exclude_none=True) if body.config else None,
        labels=body.labels or [],
        environment=body.environment or {},
        url_settings=body.url_settings.given() if body.url_settings else {},
    )
    return sprite_reply(await engine.create(request))


@router.get("", responses=failures(400), summary="List sprites")
async def list_(
    engine: EngineOf,
    prefix: Annotated[str | None, Query(description="Only names that start so.")] = None,
    max_results: Annotated[
        int, Query(description=f"Sprites a page; from 1 to {MAX_PAGE}, other numbers count as the nearest.")
    ] = MAX_PAGE,
    continuation_token: Annotated[
        str | None, Query(description="`next_continuation_token` of the page before.")
    ] = None,
) -> SpriteList:
    """One page of sprites by name, and how many there are in all."""
    after = _name_in(continuation_token) if continuation_token else None
    page, following = await engine.list(prefix or None, min(max(max_results, 1), MAX_PAGE), after)
    organization = OrganizationCounts(name=engine.options.organization, **await engine.counts())
    return SpriteList(
        sprites=[sprite_reply(sprite) for sprite in page],
        has_more=following is not None,
        next_continuation_token=_token_of(following) if following else None,
        org=organization,
        **organization.model_dump(),
    )


@router.get("/{name}", responses=failures(404), summary="Get a sprite")
async def get(engine: EngineOf, name: SpriteName) -> SpriteReply:
    """Everything about one sprite; looking does not start it."""
    return sprite_reply(await engine.get(name))


@router.put("/{name}", responses=failures(400, 404, 409, 413, 422), summary="Change a sprite")
async def update(engine: EngineOf, name: SpriteName, body: UpdateBody) -> SpriteReply:
    """What is not given stays as it is."""
    if body.clear_labels and body.labels:
        raise InvalidRequest("labels and clear_labels exclude each other", hint="send one of them")
    labels = [] if body.clear_labels else body.labels
    if labels is None and body.url_settings is None:
        raise InvalidRequest("url_settings or labels is required", hint='for example {"labels": ["ci"]}')
    settings = body.url_settings.given() if body.url_settings else None
    return sprite_reply(await engine.update(name, labels=labels, url_settings=settings))


@router.delete("/{name}", status_code=204, responses=failures(404, 409, 503), summary="Delete a sprite")
async def destroy(engine: EngineOf, name: SpriteName) -> None:
    """Its processes, its disk and its checkpoints are gone for good."""
    await engine.destroy(name)


@router.post(
    "/{name}/fork",
    status_code=201,
    responses=failures(400, 404, 409, 413, 422, 503, 507),
    summary="Fork a sprite (extension)",
)
async def fork(engine: EngineOf, name: SpriteName, body: ForkBody) -> SpriteReply:
    """A new sprite with a clone of this one's disk, or of a checkpoint. This one goes on running."""
    return sprite_reply(await engine.fork(name, body.name, body.checkpoint))


@router.post("/{name}/stop", responses=failures(404, 409, 503), summary="Stop a sprite (extension)")
async def stop(engine: EngineOf, name: SpriteName) -> SpriteReply:
    """End its processes and go cold; the next use starts it again."""
    await engine.stop(name)
    return sprite_reply(await engine.get(name))


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")


def _name_in(token: str) -> str:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            "invalid continuation_token parameter", hint="send next_continuation_token of the page before"
        ) from error
