"""What the engine asks a pilot: whether the sprite lives, and why it should stay awake."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from spriggan.errors import Unavailable
from spriggan.wire.exchange import ask

PATIENCE_S = 5.0
MAX_ANSWER = 1 << 20
MAX_REASONS = 50
MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class Status:
    """``running`` is False when the sprite's first process has ended."""

    running: bool
    reasons: list[str]


async def status(socket: Path) -> Status:
    """Ask the pilot behind ``socket``. Raises ``Unavailable`` if it gives no sensible answer."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            code, answer = await ask(socket, "GET", "/pilot/status", limit=MAX_ANSWER)
        if code != HTTPStatus.OK:
            raise OSError(f"it answered {code}")
        said: Any = json.loads(answer)
        running, reasons = said["running"] is not False, list(said["reasons"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"the sprite's pilot does not answer: {error or type(error).__name__}",
            hint="stop the sprite and use it again",
        ) from error
    return Status(running, [str(reason)[:MAX_REASON_LENGTH] for reason in reasons[:MAX_REASONS]])
