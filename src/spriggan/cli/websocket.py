"""Opening a WebSocket to the server."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from spriggan import __version__
from spriggan.cli.endpoint import Endpoint, unreachable
from spriggan.cli.refusal import refusal
from spriggan.errors import Broken

MAX_MESSAGE = 16 * 1024 * 1024
OPEN_TIMEOUT = 120  # the sprite may have to be started, and its disk checked, first


async def open_socket(
    endpoint: Endpoint, path: str, query: list[tuple[str, str]] | None = None
) -> ClientConnection:
    """Connect to ``path``. Raises ``Refused``, ``Broken`` or ``Unavailable``."""
    options: dict[str, Any] = {
        "additional_headers": endpoint.headers,
        "user_agent_header": f"spriggan/{__version__}",
        "compression": None,
        "max_size": MAX_MESSAGE,
        "open_timeout": OPEN_TIMEOUT,
        "ping_timeout": 60,
        "close_timeout": 2,
    }
    uri = "ws" + endpoint.url.removeprefix("http") + path + ("?" + urlencode(query) if query else "")
    try:
        if endpoint.socket:
            return await unix_connect(str(endpoint.socket), uri, **options)
        return await connect(uri, proxy=None if endpoint.is_local else True, **options)
    except InvalidStatus as error:
        body = bytes(error.response.body or b"").decode(errors="replace")
        raise refusal(error.response.status_code, body, endpoint) from error
    except InvalidHandshake as error:
        raise Broken(
            f"{endpoint} does not speak the Sprites protocol ({error})",
            hint="is a Spriggan server listening there?",
        ) from error
    except OSError as error:  # TimeoutError is one, too
        raise unreachable(endpoint, error) from error
