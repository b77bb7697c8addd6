"""Checkpoint ids: ``v1``, ``v2``… for those a user makes, ``auto-<unix ms>`` for automatic ones."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBERED = re.compile(r"v([1-9][0-9]{0,8})")
_AUTOMATIC = re.compile(r"auto-([1-9][0-9]{0,15})")

AUTOMATIC_KEPT = 3


def numbered(number: int) -> str:
    """The id of checkpoint ``number``, counted from 1."""
    return f"v{number}"


def is_checkpoint_id(text: str) -> bool:
    """Whether ``text`` can be the id of a checkpoint; also what makes it safe in a path."""
    return bool(_NUMBERED.fullmatch(text) or _AUTOMATIC.fullmatch(text))


def automatic(unix_ms: int, taken: Iterable[str]) -> str:
    """An id for an automatic checkpoint made at ``unix_ms``, later than all automatic ones in ``taken``.

    A clock that stands still or was set back must give neither an id twice nor one that
    sorts before an older checkpoint, because the oldest are the ones that are pruned.
    """
    newest = max((automatic_time(known) or 0 for known in taken), default=0)
    return f"auto-{max(unix_ms, newest + 1)}"


def automatic_time(checkpoint_id: str) -> int | None:
    """The time in an automatic checkpoint's id; None for any other id."""
    match = _AUTOMATIC.fullmatch(checkpoint_id)
    return int(match[1]) if match else None


def surplus(ids: Iterable[str], current: str | None) -> list[str]:
    """Which automatic checkpoints are to go, oldest first: all but the last three and the current one."""
    ordered = sorted((known for known in ids if automatic_time(known)), key=lambda k: automatic_time(k) or 0)
    return [old for old in ordered[:-AUTOMATIC_KEPT] if old != current]
