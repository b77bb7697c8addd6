"""What a build reports while it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A step that starts (``seconds`` is None) or is done."""

    name: str  # "packages", "base", "pack base", …
    note: str = ""
    seconds: float | None = None
    bytes: int | None = None

    def __str__(self) -> str:
        parts = [self.name]
        if self.note:
            parts.append(self.note)
        if self.bytes is not None:
            parts.append(f"{self.bytes / 1e6:.1f} MB")
        if self.seconds is not None:
            parts.append(f"{self.seconds:.1f} s")
        return ", ".join(parts)


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """The progress of callers that do not care."""


class Outcome:
    """Filled in by a step while it runs, reported when it is done."""

    note: str = ""
    bytes: int | None = None


@contextmanager
def step(progress: Progress, name: str, note: str = "") -> Iterator[Outcome]:
    """Report the start and, if it does not fail, the end of a step."""
    progress(Step(name, note))
    outcome = Outcome()
    began = time.monotonic()
    yield outcome
    progress(Step(name, outcome.note, time.monotonic() - began, outcome.bytes))
