"""How things are printed: tables, sizes, times, and nothing that could drive a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click


def printable(text: object) -> str:
    """``text`` with control characters made visible.

    Comments, commands and error texts may come from inside a sprite; printed raw, they
    could rewrite the screen or the title of the terminal of whoever looks at them.
    """
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print ``rows`` below ``columns``, aligned."""
    cells = [list(columns), *([printable(value).replace("\n", " ") for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Print one fact a line; what is empty or unknown is left out."""
    shown = [(name, printable(value)) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{name.ljust(width)}  {value}")


def as_json(value: Any) -> None:
    """Print ``value`` as JSON."""
    click.echo(json.dumps(value, indent=2))


def size(count: int | float | None) -> str:
    """Bytes for people: ``1.5 GiB``."""
    if count is None:
        return "-"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def age(timestamp: object) -> str:
    """How long ago an RFC 3339 time was: ``5m``, ``3h``, ``2d``."""
    try:
        then = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return "-"
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
