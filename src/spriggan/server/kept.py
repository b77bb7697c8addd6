"""Connections to services that have answered a request and can take another, for a moment.

One is used again only in the run of the sprite in which it was made, and only while nothing has come over it: a
service that closes it, ends, or says more than it was asked is done with. However much it is used it does not
become old, for which program serves a URL may change. The sprite's pilot does not know of it, and it keeps no
sprite awake.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from spriggan.server.link import Link

FOR_S = 1.0  # from when it was made
MAX_OF_ONE = 16
MAX_OF_ALL = 256


@dataclass(frozen=True)
class _Idle:
    sprite_id: str
    run: int
    link: Link
    end: asyncio.TimerHandle


class Kept:
    """The idle connections of one server."""

    def __init__(self) -> None:
        self._idle: dict[int, _Idle] = {}  # by descriptor, the one used last at the end

    def put(self, sprite_id: str, run: int, link: Link) -> None:
        """Keep ``link``, which was made in that run of the sprite, or close it."""
        of_one = sum(idle.sprite_id == sprite_id for idle in self._idle.values())
        left = link.made_at + FOR_S - time.monotonic()
        if left <= 0 or of_one >= MAX_OF_ONE or len(self._idle) >= MAX_OF_ALL:
            link.close()
            return
        loop, key = asyncio.get_running_loop(), link.fileno()
        self._idle[key] = _Idle(sprite_id, run, link, loop.call_later(left, self._drop, key))
        loop.add_reader(key, self._drop, key)

    def take(self, sprite_id: str, run: int) -> Link | None:
        """The one used last, as a link that is open; None if there is none of that run."""
        for key, idle in reversed(list(self._idle.items())):
            if idle.sprite_id != sprite_id:
                continue
            if idle.run == run and idle.link.silent:
                return self._remove(key)
            self._drop(key)
        return None

    def close(self) -> None:
        """Close all of them."""
        for key in list(self._idle):
            self._drop(key)

    def _drop(self, key: int) -> None:
        self._remove(key).close()

    def _remove(self, key: int) -> Link:
        idle = self._idle.pop(key)
        idle.end.cancel()
        asyncio.get_running_loop().remove_reader(key)
        return idle.link
