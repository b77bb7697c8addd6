"""How many sprites, and how fast: limits that the operator of a server may set."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from spriggan.errors import LimitReached, RateLimited

WINDOW_S = 60


@dataclass(frozen=True)
class Allowance:
    """What is left of a rate: ``remaining`` of ``limit``; all of it again in ``reset_s`` seconds."""

    limit: int
    remaining: int
    reset_s: int


class CreationRate:
    """At most ``limit`` new sprites within ``WINDOW_S`` seconds; 0 is no limit."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._times: deque[float] = deque()

    def take(self) -> None:
        """Count one. Raises ``RateLimited`` if there were too many."""
        if not self._limit:
            return
        self._forget_old()
        if len(self._times) >= self._limit:
            raise RateLimited(
                "sprite_creation_rate_limited",
                f"more than {self._limit} sprites were created within {WINDOW_S} seconds",
                limit=self._limit,
                count=len(self._times),
                window_s=WINDOW_S,
                retry_after_s=self._seconds_until(self._times[0]),
            )
        self._times.append(self._clock())

    def allowance(self) -> Allowance | None:
        """What is left; None without a limit."""
        if not self._limit:
            return None
        self._forget_old()
        reset = self._seconds_until(self._times[-1]) if self._times else 0
        return Allowance(self._limit, self._limit - len(self._times), reset)

    def _forget_old(self) -> None:
        while self._times and self._times[0] <= self._clock() - WINDOW_S:
            self._times.popleft()

    def _seconds_until(self, moment: float) -> int:
        """Until what happened at ``moment`` no longer counts."""
        return max(1, math.ceil(moment + WINDOW_S - self._clock()))


def check_running(limit: int, running: int) -> None:
    """Raise ``LimitReached`` if ``running`` sprites leave no room for another; ``limit`` 0 is no limit."""
    if limit and running >= limit:
        raise LimitReached(
            "concurrent_sprite_limit_exceeded",
            f"{running} sprites are running, and this server runs {limit} at a time",
            limit=limit,
            count=running,
            hint="stop one (spriggan stop NAME), or wait until one falls asleep",
        )
