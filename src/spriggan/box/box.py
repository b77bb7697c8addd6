"""What every kind of box can do. The engine knows boxes by this interface only."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Protocol

from spriggan.wire.spec import Limits, Policies, SpriteSpec


class State(StrEnum):
    """What is left of a sprite's box, as the kernel tells."""

    GONE = "gone"
    RUNNING = "running"
    RETIRED = "retired"  # all is well, and its pilot has ended until somebody needs one
    NO_PILOT = "no_pilot"  # its pilot died: the user's processes go on, but nobody serves them
    ENDED = "ended"  # retired, and then the sprite's first process ended


class Box(Protocol):
    """One way to run sprites. Methods are idempotent where that makes sense, and keep no state
    that a restarted server would miss: what runs is read from the kernel and the runtime directory.
    """

    kind: str

    async def warm(self) -> None:
        """Start what makes the first start quick."""
        ...

    def expect(self) -> None:
        """A sprite or a command in one is about to be started: whatever makes that quicker may begin."""
        ...

    async def start(self, spec: SpriteSpec, netns: int) -> None:
        """Start a sprite; ``netns`` holds its uplink. Returns when commands can run.

        A spare (``spec.is_spare``) is nobody's yet: it has no pilot, which ``take_spare`` gives it.

        Raises ``Broken`` with the pilot's own words, ``DamagedDisk`` if it is that the disk does not
        mount; nothing is left of the attempt then.
        """
        ...

    async def take_spare(self, spec: SpriteSpec) -> None:
        """Make a spare the sprite of ``spec``. Returns when commands can run.

        ``spec`` has a name, and may differ from what the spare was started with in user, environment and
        capability. Raises ``Broken``; the caller stops what is left.
        """
        ...

    async def stop(self, sprite_id: str, *, grace: float) -> None:
        """End a sprite. When this returns its processes, mounts, loop device and cgroup are gone
        and its disk is flushed. Processes get SIGTERM and ``grace`` seconds first.
        """
        ...

    async def stop_inner(self, sprite_id: str, *, grace: float) -> None:
        """End the user's world and let go of the disk; the pilot stays."""
        ...

    async def start_inner(self, sprite_id: str) -> None:
        """Start the user's world again, from the disk as it is now."""
        ...

    async def revive(self, sprite_id: str) -> None:
        """Start a new pilot for a sprite in state ``RETIRED`` or ``NO_PILOT``.

        Of one that died the sessions are lost, of one that retired nothing is.
        """
        ...

    async def retire(self, sprite_id: str) -> bool:
        """Have the sprite's pilot end until ``revive``; False if it is needed, and stays.

        Nobody may ask it for anything meanwhile.
        """
        ...

    async def set_policies(self, sprite_id: str, policies: Policies) -> None:
        """Put other policies in force, also for a pilot to come. Raises ``Broken`` if they are not."""
        ...

    def limit(self, sprite_id: str, limits: Limits) -> None:
        """Change what a running sprite may use. Raises ``Conflict`` if it uses more than that now."""
        ...

    def state(self, sprite_id: str) -> State: ...

    def freeze(self, sprite_id: str) -> None: ...

    def thaw(self, sprite_id: str) -> None: ...

    def frozen(self, sprite_id: str) -> bool: ...

    def list(self) -> list[str]:
        """Ids of sprites of which anything is left in the kernel or the runtime directory."""
        ...

    def disk_fd(self, sprite_id: str) -> int:
        """Open the root of the sprite's mounted disk, to flush and trim it; the caller closes it."""
        ...

    def spec(self, sprite_id: str) -> SpriteSpec | None:
        """What the sprite was last started with."""
        ...

    def pilot_socket(self, sprite_id: str) -> Path: ...

    async def close(self) -> None:
        """Let go of helpers; sprites go on."""
        ...
