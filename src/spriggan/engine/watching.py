"""Sprites as they change, for those who watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from spriggan.engine import rows
from spriggan.engine.core import Core
from spriggan.engine.records import Sprite

DESTROYED = "destroyed"


@dataclass(frozen=True)
class Change:
    """A sprite that is new or has changed; ``sprite`` None: nothing has for some time."""

    sprite: Sprite | None


async def watch(core: Core, prefix: str, heartbeat_s: float) -> AsyncIterator[Change]:
    """First every sprite whose name begins with ``prefix``, then each that changes, for ever.

    A sprite that was destroyed comes a last time, with the status ``destroyed``.
    """
    known: dict[str, Sprite] = {}
    while True:
        upcoming = core.changes.upcoming()
        found = await core.store.run(lambda tx: rows.sprites(tx, prefix))
        now = {row.id: core.view(row) for row in found}
        gone = [replace(was, status=DESTROYED) for key, was in known.items() if key not in now]
        for sprite in gone + [new for key, new in now.items() if _differs(known.get(key), new)]:
            yield Change(sprite)
        known = now
        try:
            async with asyncio.timeout(heartbeat_s):
                await upcoming.wait()
        except TimeoutError:
            yield Change(None)


def _differs(before: Sprite | None, now: Sprite) -> bool:
    # Reasons to be awake come and go with every request; they are for those who ask.
    return before is None or replace(before, awake_because=[]) != replace(now, awake_because=[])
