"""Telling those who watch that a sprite is not what it was."""

from __future__ import annotations

import asyncio


class Changes:
    """A bell that rings for everybody who listens."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Some sprite came, went or changed."""
        self._next.set()
        self._next = asyncio.Event()

    def upcoming(self) -> asyncio.Event:
        """Set at the next change. Taken before looking, so that what happens meanwhile is not missed."""
        return self._next
