"""How much a session has put out lately."""

from __future__ import annotations

import math

SPAN_S = 5.0


class Rate:
    """Bytes a second, of which what was long ago counts less and less."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._at = 0.0

    def add(self, size: int, now: float) -> None:
        self._rate = self.at(now) + size / SPAN_S
        self._at = now

    def at(self, now: float) -> float:
        return self._rate * math.exp(-max(0.0, now - self._at) / SPAN_S)
