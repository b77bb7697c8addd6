"""Outputs cut to what an agent can take in, and said so."""

from __future__ import annotations

from typing import Any

MAX_TEXT = 16 * 1024  # bytes of one output
MAX_ROWS = 200  # of one list


class Bounded:
    """The beginning and the end of bytes that come piece by piece, in constant memory."""

    def __init__(self, limit: int = MAX_TEXT) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, data: bytes) -> None:
        """Take ``data``, which follows what was before."""
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            self._cut()

    def text(self) -> str:
        """All of it, or what is left with a line in between that says how much is not."""
        self._cut()
        if not self._dropped:
            return (self._head + self._tail).decode(errors="replace")
        gap = f"\n[… {self._dropped} bytes are left out here: write to a file and read parts of it …]\n"
        return self._head.decode(errors="replace") + gap + self._tail.decode(errors="replace")

    def _cut(self) -> None:
        surplus = len(self._tail) - self._half
        if surplus > 0:
            del self._tail[:surplus]
            self._dropped += surplus


def rows(name: str, found: list[Any], hint: str) -> dict[str, Any]:
    """A list under ``name`` with at most ``MAX_ROWS``; ``hint`` says how to see the rest."""
    shown: dict[str, Any] = {name: found[:MAX_ROWS]}
    if len(found) > MAX_ROWS:
        shown["left_out"] = f"{len(found) - MAX_ROWS} more; {hint}"
    return shown
