"""Requests to the server, on behalf of the sprite and with its capability."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from spriggan.pilot.request import error_response
from spriggan.wire.exchange import Exchange, ask
from spriggan.wire.spec import SpriteSpec

MAX_ANSWER = 16 << 20
PATIENCE_S = 10.0


class Upstream:
    """The server as one sprite may use it. The capability is good for this sprite and nothing else."""

    def __init__(self, spec: SpriteSpec) -> None:
        self._spec = spec

    async def hand_on(self, method: str, path: str, query: str, body: bytes) -> Response:
        """What the server answers for ``path`` of this sprite, as it comes; 503 while it is down."""
        target = self._target(path) + (f"?{query}" if query else "")
        exchange = Exchange(self._spec.server_socket)
        try:
            answer = await exchange.send(method, target, body, headers=self._headers())
        except OSError:
            await exchange.close()
            return self.unavailable()
        kind = dict(answer.headers).get(b"content-type", b"application/json").decode("latin-1")
        return StreamingResponse(_whole(exchange), answer.status_code, media_type=kind)

    async def get(self, path: str) -> bytes:
        """The body of the server's answer. Raises ``OSError`` if that is no success."""
        async with asyncio.timeout(PATIENCE_S):
            status, body = await ask(
                self._spec.server_socket,
                "GET",
                self._target(path),
                headers=self._headers(),
                limit=MAX_ANSWER,
            )
        if status != HTTPStatus.OK:
            raise OSError(f"the server answered {status}")
        return body

    def unavailable(self) -> Response:
        """The answer while the server is down."""
        hint = "the sprite itself goes on; try again in a moment"
        return error_response(503, "the Spriggan server does not answer", hint)

    def _target(self, path: str) -> str:
        return f"/v1/sprites/{quote(self._spec.name, safe='')}/{quote(path)}"

    def _headers(self) -> list[tuple[str, str]]:
        return [
            ("Authorization", f"Bearer {self._spec.capability}"),
            ("Content-Type", "application/json"),
        ]


async def _whole(exchange: Exchange) -> AsyncIterator[bytes]:
    """The body of an answer, after which the connection is closed."""
    async with exchange:
        async for piece in exchange.body():
            yield piece
