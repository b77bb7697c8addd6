"""The engine: one state machine per sprite, records that survive, and what keeps them true."""

from spriggan.engine.engine import Engine
from spriggan.engine.options import Options
from spriggan.engine.records import (
    Awake,
    Checkpoint,
    CreateRequest,
    Sprite,
    SpriteConfig,
    TokenInfo,
)

__all__ = [
    "Awake",
    "Checkpoint",
    "CreateRequest",
    "Engine",
    "Options",
    "Sprite",
    "SpriteConfig",
    "TokenInfo",
]
