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


class Messages:
    """Finds messages among a client's WebSocket bytes (RFC 6455, 5.2), which it does not change."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0  # bytes of the payload that are still to come
        self._counts = False

    def feed(self, data: bytes) -> bool:
        """Whether any of ``data`` belongs to a message; pings, pongs and the end are none."""
        found = False
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                found |= self._counts
                continue
            self._head.append(data[at])
            at += 1
            if len(self._head) >= 2 and len(self._head) == _head_size(self._head[1]):
                self._counts = self._head[0] & 0x0F < 8
                self._left = _payload_size(self._head)
                self._head.clear()
                found |= self._counts
        return found


def _head_size(second: int) -> int:
    """Length of a frame's head by its second byte."""
    return 2 + {126: 2, 127: 8}.get(second & 0x7F, 0) + (4 if second & 0x80 else 0)


def _payload_size(head: bytearray) -> int:
    short = head[1] & 0x7F
    return int.from_bytes(head[2 : {126: 4, 127: 10}[short]]) if short > 125 else short
