"""One sprite as the running engine knows it: its phase, its lock, and who holds it awake."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from spriggan.wire.spec import SpriteSpec


class Phase(Enum):
    """Where a sprite is in its life. Outside, each shows as cold, warm or running."""

    CREATING = "creating"
    COLD = "cold"
    WAKING = "waking"
    RUNNING = "running"
    WARM = "warm"  # frozen, because nobody needs it
    PAUSED = "paused"  # frozen, because the pool is nearly full and it writes
    RESTORING = "restoring"
    STOPPING = "stopping"
    DESTROYING = "destroying"


_NEXT = {
    Phase.CREATING: {Phase.COLD, Phase.DESTROYING},
    Phase.COLD: {Phase.WAKING, Phase.RESTORING, Phase.DESTROYING},
    Phase.WAKING: {Phase.RUNNING, Phase.COLD},
    Phase.RUNNING: {Phase.WARM, Phase.PAUSED, Phase.RESTORING, Phase.STOPPING, Phase.COLD, Phase.DESTROYING},
    Phase.WARM: {Phase.RUNNING, Phase.RESTORING, Phase.STOPPING, Phase.COLD, Phase.DESTROYING},
    Phase.PAUSED: {Phase.RUNNING, Phase.STOPPING, Phase.COLD, Phase.DESTROYING},
    Phase.RESTORING: {Phase.RUNNING, Phase.COLD},
    Phase.STOPPING: {Phase.COLD, Phase.RUNNING},
    Phase.DESTROYING: {Phase.DESTROYING},
}

_STATUS = {Phase.WARM: "warm", Phase.RUNNING: "running", Phase.PAUSED: "running", Phase.STOPPING: "running"}


class Live:
    """The engine's memory of one sprite. It begins ``cold`` or ``creating``; recovery corrects it."""

    def __init__(self, sprite_id: str, phase: Phase = Phase.COLD) -> None:
        self.sprite_id = sprite_id
        self.phase = phase
        self.lock = asyncio.Lock()
        self.slot: int | None = None  # taken exactly while there is a box
        self.spare: SpriteSpec | None = None  # of the box that waits for its first wake
        self.lost: str | None = None  # why its processes ended, which its next start does not forget
        self.unsettled = False  # an intent is open that nobody is working on
        self.paused_because = ""
        self.pilot_reasons: list[str] = []  # as the pilot last said
        self.busy_at = time.monotonic()  # when there last was a reason to be awake
        self.warm_at = 0.0
        self.retired = False  # its pilot has ended until somebody needs one, or is asked to
        self.needed_at = 0.0  # when the pilot last said that it is needed
        self.run = 0  # how often it has begun to run
        self.asked = 0  # requests to the pilot that need no lock
        self._holds: dict[int, str] = {}
        self._keys = itertools.count()

    def move(self, phase: Phase) -> None:
        """Go to ``phase``; a step that makes no sense is an error of the engine itself."""
        if phase not in _NEXT[self.phase]:
            raise RuntimeError(f"{self.sprite_id} cannot go from {self.phase.value} to {phase.value}")
        self.phase = phase
        self.run += phase is Phase.RUNNING

    @property
    def status(self) -> str:
        """``cold``, ``warm`` or ``running``, as clients see it."""
        if self.phase is Phase.RESTORING:
            return "cold" if self.slot is None else "running"
        return _STATUS.get(self.phase, "cold")

    @contextmanager
    def hold(self, reason: str) -> Iterator[None]:
        """Be a reason to stay awake for as long as the block lasts."""
        key = next(self._keys)
        self._holds[key] = reason
        try:
            yield
        finally:
            del self._holds[key]
            self.busy_at = time.monotonic()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The pilot is asked something without the lock, and must stay for as long as the block lasts."""
        self.asked += 1
        try:
            yield
        finally:
            self.asked -= 1

    @property
    def held(self) -> bool:
        return bool(self._holds)

    @property
    def reasons(self) -> list[str]:
        """Why it is awake, or why it stands still."""
        if self.phase is Phase.PAUSED:
            return [f"paused: {self.paused_because}"]
        if self.phase is Phase.RUNNING:
            return list(dict.fromkeys([*self._holds.values(), *self.pilot_reasons]))
        return []
