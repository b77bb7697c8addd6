"""Text messages of an exec socket: JSON objects with a ``type``."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from typing import Any, TypeGuard

KEEPALIVE = '{"type":"keepalive"}'
MAX_TERMINAL = 65535  # rows and columns are 16-bit numbers in the kernel


@dataclass(frozen=True)
class Resize:
    """The client's terminal has another size now."""

    rows: int
    cols: int


@dataclass(frozen=True)
class Signal:
    """The client wants a signal sent to the command."""

    number: int


def session_info(  # the wire's field names
    session_id: str, *, command: str, created: int, rows: int, cols: int, is_owner: bool, tty: bool
) -> str:
    """The first message on every exec socket.

    The id is a string because the Go client cannot read a number there, and ``tty`` must be
    right because the Python client switches its framing by it.
    """
    return _text(
        type="session_info",
        session_id=session_id,
        command=command,
        created=created,
        rows=rows,
        cols=cols,
        is_owner=is_owner,
        tty=tty,
    )


def exit_message(code: int) -> str:
    """How a terminal session ends; clients differ in the key they read."""
    return _text(type="exit", exit_code=code, code=code)


def truncated(lost: int, message: str) -> str:
    """Output that this client can no longer get."""
    return _text(type="truncated", bytes=lost, message=message)


def parse_control(text: str) -> Resize | Signal | None:
    """Read a client's text message; None for what this version does not know or cannot use.

    There is no way to answer a text message, so nonsense is ignored rather than refused.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    if data.get("type") == "resize":
        return _resize(data)
    if data.get("type") == "signal":
        number = signal_number(data.get("signal"))
        return None if number is None else Signal(number)
    return None


def signal_number(name: object) -> int | None:
    """The number of a signal given as ``TERM``, ``SIGTERM``, ``15`` or ``"15"``; None if there is none."""
    if isinstance(name, bool) or not isinstance(name, int | str):
        return None
    if isinstance(name, str):
        upper = name.strip().upper()
        if upper.isascii() and upper.isdigit() and len(upper) <= 2:
            name = int(upper)
        else:
            full = upper if upper.startswith("SIG") else f"SIG{upper}"
            try:
                return int(signal.Signals[full])
            except KeyError:
                return None
    return name if 1 <= name < signal.NSIG else None


def _resize(data: dict[str, Any]) -> Resize | None:
    rows, cols = data.get("rows"), data.get("cols")
    if not _is_size(rows) or not _is_size(cols):
        return None
    return Resize(rows, cols)


def _is_size(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TERMINAL


def _text(**fields: object) -> str:
    return json.dumps(fields, separators=(",", ":"))
