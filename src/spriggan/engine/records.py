"""What the engine knows of sprites, checkpoints and tokens, as plain data.

``SpriteRow`` is what is stored; ``Sprite`` is what is shown, and adds what only the
running engine knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

URL_SETTINGS_DEFAULT = {"auth": "sprite", "private_access": "org_users"}


@dataclass(frozen=True)
class SpriteConfig:
    """What a sprite may use at most."""

    ram_mb: int
    cpus: float  # 0: all cores
    storage_gb: int
    pids: int


@dataclass(frozen=True)
class SpriteRow:
    """A sprite as the store keeps it."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    image: str
    layers: list[str]  # digests, topmost first: an image built anew does not change existing sprites
    user: str
    shell: str
    image_environment: dict[str, str]
    box: str
    config: SpriteConfig
    labels: list[str]
    environment: dict[str, str]
    url_settings: dict[str, str]
    working_dir: str = ""  # where commands start; empty: in the user's home
    status: str = "cold"  # as last known; after a crash the box is asked
    last_error: str | None = None
    last_running_at: datetime | None = None
    last_warming_at: datetime | None = None
    next_checkpoint: int = 1
    current_checkpoint: str | None = None
    policies: dict[str, Any] = field(default_factory=dict)  # by kind, as they were given


@dataclass(frozen=True)
class Sprite:
    """A sprite as clients see it."""

    id: str
    name: str
    organization: str
    status: str  # cold | warm | running
    phase: str  # finer: creating, waking, paused, restoring, stopping, destroying as well
    created_at: datetime
    updated_at: datetime
    last_running_at: datetime | None
    last_warming_at: datetime | None
    labels: list[str]
    environment: dict[str, str]
    url_settings: dict[str, str]
    config: dict[str, Any]
    image: str
    box: str
    version: str
    environment_version: str
    last_error: str | None
    awake_because: list[str]
    current_checkpoint: str | None
    url: str | None = None


@dataclass(frozen=True)
class Health:
    """How a sprite is. ``status``: healthy, hibernated, unhealthy or error; ``reason`` if not well."""

    sprite: Sprite
    status: str
    reason: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """An immutable clone of a disk."""

    sprite_id: str
    id: str
    create_time: datetime
    comment: str
    source_id: str | None  # the checkpoint that was current when this one was made
    is_auto: bool
    size: int  # bytes allocated in the image, shared with other clones or not
    is_current: bool = False


@dataclass(frozen=True)
class TokenInfo:
    """What may be shown of a token; its text is shown once, when it is made."""

    id: str
    label: str
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True)
class Intent:
    """A change of several steps that is under way."""

    id: int
    kind: str
    sprite_id: str
    sprite_name: str
    details: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True)
class CreateRequest:
    """What a client asks for; ``None`` and empty mean the server's defaults."""

    name: str
    image: str | None = None
    box: str | None = None
    config: Mapping[str, Any] | None = None
    labels: list[str] = field(default_factory=list)
    environment: Mapping[str, str] = field(default_factory=dict)
    url_settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Awake:
    """A sprite that runs as long as this is held."""

    sprite: Sprite
    pilot_socket: Path
    run: int  # another one after each rest or restart
