"""A connection that keeps a sprite awake only while something is said on it.

Clients keep control connections open between their commands, and ping on them. Held like an
exec socket, they would never let a sprite sleep. A command that runs is a reason of its own, which
the pilot names; so it is enough to hold the sprite from each message on until that is known.
"""

from __future__ import annotations

import asyncio

from spriggan.engine import Engine

HOLD_S = 5.0


class Attention:
    """The hold on one sprite."""

    def __init__(self, engine: Engine, name: str, reason: str) -> None:
        self._engine = engine
        self._name = name
        self._reason = reason
        self._until = 0.0
        self._task: asyncio.Task[None] | None = None
        self._awake = asyncio.Event()

    async def call(self) -> None:
        """Have the sprite awake now, and hold it for a while. Raises what ``engine.awake`` does."""
        self._until = asyncio.get_running_loop().time() + HOLD_S
        if self._task is None or self._task.done():
            self._awake.clear()
            self._task = asyncio.create_task(self._hold())
        waiting = asyncio.create_task(self._awake.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """Let go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _hold(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._engine.awake(self._name, self._reason):
            self._awake.set()
            while (left := self._until - loop.time()) > 0:  # noqa: ASYNC110 - the time moves
                await asyncio.sleep(left)
