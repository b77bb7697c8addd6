"""The host: its organization, images and pool."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from spriggan.disk import Usage
from spriggan.image import Image
from spriggan.server.errors import failures
from spriggan.server.routing import EngineOf

router = APIRouter(prefix="/v1", tags=["host"])


class Organization(BaseModel):
    """Whose server this is."""

    slug: str
    sprites_enabled: bool = True
    active_sprites: list[str] = Field(description="Names of the sprites that are running.")
    max_sprites: int | None = Field(default=None, description="Always null: no limit.")
    active_sprite_limit: int | None = Field(description="How many may run at a time; null: no limit.")


class OrganizationReply(BaseModel):
    organization: Organization


class ImagesReply(BaseModel):
    images: list[Image] = Field(description="Images that sprites can be created from.")


class PoolReply(BaseModel):
    pool: Usage


class TrimReply(BaseModel):
    trimmed_bytes: int = Field(description="How much was given back to the host's file system.")


@router.get("/organization", responses=failures(), summary="Show the organization")
async def organization(engine: EngineOf) -> OrganizationReply:
    """Whose server this is, and which sprites run."""
    active: list[str] = []
    after: str | None = None
    while True:
        page, after = await engine.list(None, 50, after)
        active += [sprite.name for sprite in page if sprite.status == "running"]
        if after is None:
            break
    return OrganizationReply(
        organization=Organization(
            slug=engine.options.organization,
            active_sprites=active,
            active_sprite_limit=engine.options.max_running or None,
        )
    )


@router.get("/images", responses=failures(), summary="List images (extension)")
async def images(engine: EngineOf) -> ImagesReply:
    """The images in this server's data directory."""
    return ImagesReply(images=await engine.images())


@router.get("/pool", responses=failures(503), summary="Show the pool's space (extension)")
async def pool(engine: EngineOf) -> PoolReply:
    """What disks and checkpoints take, and what the host has left."""
    return PoolReply(pool=await engine.pool_usage())


@router.post("/pool/trim", responses=failures(503), summary="Give deleted space back at once (extension)")
async def trim(engine: EngineOf) -> TrimReply:
    """Discard what sprites have deleted, without waiting for it to happen by itself."""
    return TrimReply(trimmed_bytes=await engine.pool_trim())
