"""Ctrl-C and SIGTERM: they end a run once, and never in the middle of undoing something."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")


class Interruption:
    """What has come, and whether it has to wait. ``KeyboardInterrupt`` is what it becomes, in both cases."""

    def __init__(self) -> None:
        self.came = False
        self._due = False
        self._held = 0

    def listen(self) -> None:
        """Take both signals from now on."""
        signal.signal(signal.SIGINT, self._take)
        signal.signal(signal.SIGTERM, self._take)

    @contextmanager
    def held(self) -> Iterator[None]:
        """One that comes while the block runs is raised at its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._due and not self._held:
                self._due = False
                raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            return
        self.came = True
        print("\ninterrupted: tidying up, which takes up to a minute", file=sys.stderr, flush=True)
        if not self._held:
            raise KeyboardInterrupt
        self._due = True


class Undone(AbstractContextManager[T]):
    """A context manager whose end nothing interrupts."""

    def __init__(self, context: AbstractContextManager[T], interruption: Interruption) -> None:
        self._context = context
        self._interruption = interruption

    def __enter__(self) -> T:
        return self._context.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with self._interruption.held():
            return self._context.__exit__(kind, error, trace)
