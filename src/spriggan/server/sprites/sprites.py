"""Sprites: create, look at, change, fork, stop and delete."""

from __future__ import annotations

import base64
import binascii
import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Header, Query, Response

from spriggan.engine import CreateRequest, Engine
from spriggan.errors import InvalidRequest, InvalidValue
from spriggan.server.errors import failures, rate_headers
from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.routing import router as bounded_router
from spriggan.server.sprites import watching
from spriggan.server.sprites.described import NDJSON
from spriggan.server.sprites.models import (
    CheckReply,
    CreateBody,
    ForkBody,
    RestartReply,
    SpriteList,
    SpriteReply,
    UpdateBody,
    UpgradeBody,
    UpgradeReply,
    sprite_reply,
)

MAX_PAGE = 50

router = bounded_router(prefix="/v1/sprites", tag="sprites")


@router.post(
    "", status_code=201, responses=failures(400, 404, 409, 413, 422, 429, 503, 507), summary="Create a sprite"
)
async def create(engine: EngineOf, body: CreateBody, response: Response) -> SpriteReply:
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
    created = sprite_reply(await engine.create(request))
    _say_rate(engine, response)
    return created


@router.get(
    "",
    response_model=SpriteList,
    responses=watching.STREAM | failures(400),
    summary="List sprites, or watch them",
)
async def list_(
    engine: EngineOf,
    *,
    prefix: Annotated[str | None, Query(description="Only names that start so.")] = None,
    max_results: Annotated[
        int, Query(description=f"Sprites a page; from 1 to {MAX_PAGE}, other numbers count as the nearest.")
    ] = MAX_PAGE,
    continuation_token: Annotated[
        str | None, Query(description="`next_continuation_token` of the page before.")
    ] = None,
    bulk_load: Annotated[bool, Query(description="Accepted; rows are always whole.")] = False,
    # Described by the media types of the response: as a parameter it has no meaning in OpenAPI.
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> SpriteList | Response:
    """One page of sprites by name, and how many there are in all.

    Asked for NDJSON, a stream without end: every sprite, and then each one that changes.
    """
    if NDJSON in accept.lower():
        return watching.stream(engine, prefix or "")
    after = _name_in(continuation_token) if continuation_token else None
    page, following = await engine.list(prefix or None, min(max(max_results, 1), MAX_PAGE), after)
    organization = await watching.organization(engine)
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
    responses=failures(400, 404, 409, 413, 422, 429, 503, 507),
    summary="Fork a sprite (extension)",
)
async def fork(engine: EngineOf, name: SpriteName, body: ForkBody, response: Response) -> SpriteReply:
    """A new sprite with a clone of this one's disk, or of a checkpoint. This one goes on running."""
    forked = sprite_reply(await engine.fork(name, body.name, body.checkpoint))
    _say_rate(engine, response)
    return forked


@router.post("/{name}/stop", responses=failures(404, 409, 503), summary="Stop a sprite (extension)")
async def stop(engine: EngineOf, name: SpriteName) -> SpriteReply:
    """End its processes and go cold; the next use starts it again."""
    await engine.stop(name)
    return sprite_reply(await engine.get(name))


@router.post("/{name}/restart", responses=failures(404, 409, 429, 503, 507), summary="Restart a sprite")
async def restart(engine: EngineOf, name: SpriteName) -> RestartReply:
    """End its processes and start it again. Its disk stays."""
    sprite = await engine.restart(name)
    return RestartReply(sprite_name=sprite.name, machine_id=sprite.id, message=f"{sprite.name} was restarted")


@router.post(
    "/{name}/upgrade",
    responses=failures(400, 404, 409, 413, 422, 429, 503, 507),
    summary="Bring a sprite to the server's version",
)
async def upgrade(engine: EngineOf, name: SpriteName, body: UpgradeBody | None = None) -> UpgradeReply:
    """A sprite that is up is restarted; a cold one is of the server's version when it next starts."""
    sprite = await engine.get(name)
    wanted = ((body.version if body else None) or sprite.version).removeprefix("v")
    if wanted != sprite.version:
        raise InvalidValue(
            f"this server has version {sprite.version} only",
            hint="upgrade Spriggan itself, then ask again without a version",
        )
    if sprite.status != "cold":
        await engine.restart(name)
    return UpgradeReply(name=sprite.name)


@router.get("/{name}/check", responses=failures(404), summary="Check a sprite's health")
async def check(engine: EngineOf, name: SpriteName) -> CheckReply:
    """Looks without waking it."""
    begun = time.monotonic()
    health = await engine.check(name)
    return CheckReply(
        sprite_name=health.sprite.name,
        sprite_id=health.sprite.id,
        status=health.status,
        reason=health.reason,
        checked_at=datetime.now(UTC),
        elapsed=round((time.monotonic() - begun) * 1000),
    )


def _say_rate(engine: Engine, response: Response) -> None:
    """Tell the client how many more sprites it may create now."""
    left = engine.creation_allowance()
    if left is not None:
        response.headers.update(rate_headers(left.limit, left.remaining, left.reset_s))


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
