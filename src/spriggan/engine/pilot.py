"""What the engine asks a pilot: whether anything inside is a reason to stay awake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from spriggan.errors import Unavailable

PATIENCE_S = 5.0
MAX_REASONS = 50
MAX_REASON_LENGTH = 200


async def reasons(socket: Path) -> list[str]:
    """Ask the pilot behind ``socket``. Raises ``Unavailable`` if it gives no sensible answer."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)
    try:
        async with httpx.AsyncClient(transport=transport, timeout=PATIENCE_S, trust_env=False) as client:
            answer = await client.get("http://pilot/pilot/status")
            answer.raise_for_status()
            found: Any = answer.json()["reasons"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"the sprite's pilot does not answer: {error}", hint="stop the sprite and use it again"
        ) from error
    if not isinstance(found, list):
        raise Unavailable(
            "the sprite's pilot gave no list of reasons", hint="stop the sprite and use it again"
        )
    return [str(reason)[:MAX_REASON_LENGTH] for reason in found[:MAX_REASONS]]
