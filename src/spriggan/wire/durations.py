"""Durations as Go writes them: ``1h30m``, ``10s``, ``250ms``, ``0``."""

from __future__ import annotations

import re

_SECONDS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "\N{MICRO SIGN}s": 1e-6,
    "\N{GREEK SMALL LETTER MU}s": 1e-6,
    "ns": 1e-9,
}
_PART = re.compile(r"([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})(h|ms|m|s|us|\u00b5s|\u03bcs|ns)", re.ASCII)
_LONGEST = float(1 << 63) / 1e9  # what Go's int64 of nanoseconds holds


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` means; ``ValueError`` says what is wrong with it."""
    if text in ("0", "+0", "-0"):
        return 0.0
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in ("+", "-") else text
    seconds = 0.0
    position = 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            break
        seconds += float(part[1]) * _SECONDS[part[2]]
        position = part.end()
    if not rest or position < len(rest):
        raise ValueError(
            f"{text[:64]!r} is not a duration; write a number and a unit, such as 10s, 5m or 1h30m"
        )
    if seconds > _LONGEST:
        raise ValueError(f"{text[:64]!r} is longer than any duration can be")
    return sign * seconds


def format_duration(seconds: float) -> str:
    """Write ``seconds`` so that ``parse_duration`` and Go read it."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s" if seconds else "0"
