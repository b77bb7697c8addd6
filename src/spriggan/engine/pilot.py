"""What the engine asks a pilot: whether the sprite lives, and why it should stay awake."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from spriggan.errors import Unavailable

PATIENCE_S = 5.0
MAX_REASONS = 50
MAX_REASON_LENGTH = 200


@dataclass(frozen=True)
class Status:
    """``running`` is False when the sprite's first process has ended."""

    running: bool
    reasons: list[str]


async def status(socket: Path) -> Status:
    """Ask the pilot behind ``socket``. Raises ``Unavailable`` if it gives no sensible answer."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S, trust_env=False) as client:
            answer = await client.get("http://pilot/pilot/status")
            answer.raise_for_status()
            said: Any = answer.json()
            running, reasons = said["running"] is not False, list(said["reasons"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"the sprite's pilot does not answer: {error}", hint="stop the sprite and use it again"
        ) from error
    return Status(running, [str(reason)[:MAX_REASON_LENGTH] for reason in reasons[:MAX_REASONS]])
