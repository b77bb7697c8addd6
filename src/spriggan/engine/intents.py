"""Changes of several steps: written down first, and then either finished or undone.

Whoever makes such a change registers, for its kind, the function that settles one found
half done. The same function serves after a failed step and after a crash, so that what a
crash leaves is not a case of its own.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from spriggan.engine import rows
from spriggan.engine.live import Live
from spriggan.engine.records import Intent
from spriggan.engine.store import Store

log = logging.getLogger(__name__)

Settle = Callable[[Intent, Live], Awaitable[str]]


class Intents:
    """The open intents of one store, and who can settle them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._handlers: dict[str, Settle] = {}

    def handle(self, kind: str, settle: Settle) -> None:
        """``settle`` finishes or undoes an intent of ``kind``, closes it, and says so in one line."""
        self._handlers[kind] = settle

    async def note(self, intent: Intent, **details: Any) -> Intent:
        """Write down what has become known since the intent began."""
        noted = replace(intent, details={**intent.details, **details})
        await self._store.run(lambda tx: rows.update_intent(tx, noted))
        return noted

    @asynccontextmanager
    async def under_way(self, live: Live) -> AsyncIterator[None]:
        """Run the steps of an intent that is written down already; if one fails, settle it.

        The sprite's lock is held. The last step closes the intent.
        """
        live.unsettled = True
        try:
            yield
        except BaseException:
            try:
                await self.settle(live)
            except Exception:
                # The first error is the one to report; the sprite stays unsettled and the
                # next who wants it, or the next start, tries again.
                log.exception("%s: what failed could not be undone yet", live.sprite_id)
            raise
        live.unsettled = False

    async def settle(self, live: Live) -> list[str]:
        """Finish or undo all that is open for one sprite, its lock held; a line for each."""
        lines = []
        for intent in await self._store.run(lambda tx: rows.intents(tx, live.sprite_id)):
            lines.append(await self._handlers[intent.kind](intent, live))
            log.info("%s", lines[-1])
        live.unsettled = False
        return lines
