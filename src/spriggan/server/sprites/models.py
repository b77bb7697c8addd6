"""Sprites and checkpoints as they are in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from spriggan.engine import Checkpoint, Sprite
from spriggan.engine.values import NAME

# What the engine checks is only described here, so that its words reach the client.
_NAMED: dict[str, Any] = {"pattern": f"^{NAME}$"}


def _one_of(*words: str) -> dict[str, Any]:
    return {"enum": [*words, None]}


class _Body(BaseModel):
    # Types are not guessed ("4096" is no number), and what a newer client sends besides is ignored.
    model_config = ConfigDict(strict=True, extra="ignore")


class UrlSettings(_Body):
    auth: str | None = Field(
        default=None, description="`sprite` or `public`.", json_schema_extra=_one_of("sprite", "public")
    )
    private_access: str | None = Field(
        default=None,
        description="`org_users` or `admins`.",
        json_schema_extra=_one_of("org_users", "admins"),
    )

    def given(self) -> dict[str, str]:
        """Only what the client has set."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class ConfigBody(_Body):
    ram_mb: int | None = Field(default=None, description="Memory, in MiB.", examples=[2048])
    cpus: float | None = Field(default=None, description="0 is all of the host.", examples=[2])
    storage_gb: int | None = Field(default=None, description="Size of the disk.", examples=[20])
    pids: int | None = Field(default=None, description="Processes and threads at a time (extension).")
    region: str | None = Field(default=None, description="Accepted and without effect: there is one host.")


class CreateBody(_Body):
    name: str = Field(
        description="1 to 63 lower-case letters, digits and hyphens.",
        examples=["dev"],
        json_schema_extra=_NAMED,
    )
    image: str | None = Field(default=None, description="An image of `GET /v1/images` (extension).")
    box: str | None = Field(default=None, description="The kind of box, `container` (extension).")
    config: ConfigBody | None = Field(default=None, description="Limits; this server has maxima.")
    labels: list[str] | None = None
    environment: dict[str, str] | None = Field(default=None, description="Variables of all commands.")
    url_settings: UrlSettings | None = None
    wait_for_capacity: bool | None = Field(
        default=None, description="Accepted; there is nothing to wait for."
    )
    runtime: str | None = Field(default=None, description="Accepted and without effect.")


class UpdateBody(_Body):
    labels: list[str] | None = Field(default=None, description="Replaces all labels.")
    clear_labels: bool | None = Field(default=None, description="Takes all labels away.")
    url_settings: UrlSettings | None = None


class ForkBody(_Body):
    name: str = Field(
        description="The name of the new sprite.", examples=["experiment"], json_schema_extra=_NAMED
    )
    checkpoint: str | None = Field(
        default=None, description="Start from this checkpoint, not from the live disk.", examples=["v1"]
    )


class CheckpointBody(_Body):
    comment: str | None = Field(default=None, examples=["before the upgrade"])


class ConfigReply(BaseModel):
    ram_mb: int
    cpus: int = Field(description="Rounded up: the Go client reads no fractions. 0 is all of the host.")
    cpu_limit: float = Field(description="The same with its fraction (extension).")
    storage_gb: int
    pids: int


class SpriteReply(BaseModel):
    """A sprite."""

    id: str = Field(examples=["sprite-6b2f9a0e-4d7c-4b7e-9a51-0f3f1d2c8e77"])
    name: str = Field(examples=["dev"])
    organization: str
    status: str = Field(description="`cold`, `warm` or `running`.")
    phase: str = Field(description="What the sprite is doing, finer than `status` (extension).")
    url: str | None = Field(
        description="Where its HTTP service is reached: the service with `http_port`, else port 8080.",
        examples=["http://dev.sprites.localhost:7878"],
    )
    url_settings: dict[str, str]
    created_at: datetime
    updated_at: datetime
    last_running_at: datetime | None
    last_warming_at: datetime | None
    labels: list[str]
    version: str = Field(description="Of the server.")
    environment_version: str = Field(description="Of the image.")
    primary_region: str | None = None
    bucket_name: str | None = None
    config: ConfigReply
    environment: dict[str, str]
    image: str = Field(description="Extension.")
    box: str = Field(description="Extension.")
    last_error: str | None = Field(
        description="Why it is cold or stands still, or what was lost before it last started (extension)."
    )
    awake_because: list[str] = Field(description="Who keeps it running (extension).")
    current_checkpoint: str | None = Field(description="Last created or restored (extension).")


class UpgradeBody(_Body):
    version: str | None = Field(default=None, description="Only the one this server has.")


class UpgradeReply(BaseModel):
    name: str
    status: str = "upgraded"


class RestartReply(BaseModel):
    sprite_name: str
    machine_id: str = Field(description="The sprite's id: its machine is the sprite itself.")
    message: str


class CheckReply(BaseModel):
    """How a sprite is."""

    sprite_name: str
    sprite_id: str
    status: str = Field(description="`healthy`, `hibernated` (cold or warm), `unhealthy` or `error`.")
    reason: str | None = Field(description="Why it is not well.")
    checked_at: datetime
    elapsed: int = Field(description="Milliseconds that the check took.")


class OrganizationCounts(BaseModel):
    """How many sprites there are in each status. A limit that is null does not exist."""

    name: str
    running: int
    warm: int
    cold: int
    running_limit: int | None = None
    warm_limit: int | None = None


class SpriteList(OrganizationCounts):
    """One page of sprites, and the counts of all (here for some clients, in ``org`` for others)."""

    sprites: list[SpriteReply]
    has_more: bool
    next_continuation_token: str | None
    org: OrganizationCounts


class ChangeReply(BaseModel):
    """One line of a watched list: a sprite as it is now, or a sign of life of type `heartbeat`."""

    type: str | None = Field(default=None, description="`heartbeat`, or nothing.")
    name: str | None = None
    status: str | None = Field(default=None, description="`cold`, `warm`, `running`; at last `destroyed`.")
    running_version: str | None = None
    last_running_at: datetime | None = None
    last_warming_at: datetime | None = None
    timestamp: datetime
    org: OrganizationCounts


class CheckpointReply(BaseModel):
    """A checkpoint; the entry `Current` is the live disk, which cannot be restored."""

    id: str = Field(examples=["v1"])
    create_time: datetime
    comment: str
    source_id: str | None = Field(description="The checkpoint that the disk came from.")
    history: list[str] = Field(description="All checkpoints the disk came from, the nearest first.")
    is_auto: bool = Field(description="Made by the server, before a restore.")
    is_current: bool = Field(description="Last created or restored (extension).")
    size: int | None = Field(description="Bytes in the image, shared with others or not (extension).")


class Event(BaseModel):
    """One line of a stream."""

    type: str = Field(description="`info`, and at the end `complete` or `error`.")
    data: str | None = None
    error: str | None = None
    code: str | None = Field(default=None, description="Kind of the error (extension).")
    hint: str | None = Field(default=None, description="What to do about the error (extension).")
    time: datetime


def sprite_reply(sprite: Sprite) -> SpriteReply:
    """A sprite of the engine in JSON."""
    fields = {name: getattr(sprite, name) for name in SpriteReply.model_fields if hasattr(sprite, name)}
    cpus = float(sprite.config["cpus"])
    fields["config"] = sprite.config | {"cpus": math.ceil(cpus), "cpu_limit": cpus}
    return SpriteReply.model_validate(fields)


def checkpoint_reply(checkpoint: Checkpoint, sources: Mapping[str, str | None]) -> CheckpointReply:
    """A checkpoint of the engine in JSON; ``sources`` has the source of every checkpoint there is."""
    return CheckpointReply(
        id=checkpoint.id,
        create_time=checkpoint.create_time,
        comment=checkpoint.comment,
        source_id=checkpoint.source_id,
        history=history(checkpoint.source_id, sources),
        is_auto=checkpoint.is_auto,
        is_current=checkpoint.is_current,
        size=checkpoint.size,
    )


def history(source: str | None, sources: Mapping[str, str | None]) -> list[str]:
    """``source`` and what it came from, as far as it is known."""
    found: list[str] = []
    while source is not None and source not in found:
        found.append(source)
        source = sources.get(source)
    return found


def event(kind: str, **fields: Any) -> bytes:
    """One line of a stream."""
    line = Event(type=kind, time=datetime.now().astimezone(), **fields)
    return line.model_dump_json(exclude_none=True).encode() + b"\n"
