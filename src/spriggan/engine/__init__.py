"""The engine: one state machine per sprite, records that survive, and what keeps them true."""

from spriggan.engine.engine import Engine
from spriggan.engine.limits import Allowance
from spriggan.engine.options import Options
from spriggan.engine.records import (
    Awake,
    Checkpoint,
    CreateRequest,
    Health,
    Sprite,
    SpriteConfig,
    TokenInfo,
)
from spriggan.engine.watching import Change

__all__ = [
    "Allowance",
    "Awake",
    "Change",
    "Checkpoint",
    "CreateRequest",
    "Engine",
    "Health",
    "Options",
    "Sprite",
    "SpriteConfig",
    "TokenInfo",
]
