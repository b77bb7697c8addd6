"""The app behind ``/.sprite/api.sock``: what a sprite may ask for itself.

An allow-list. What the engine has to do is handed on to the server with the sprite's own
capability, which is good for this sprite and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import h11
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from spriggan.pilot.request import error_response
from spriggan.wire.spec import SpriteSpec

MAX_BODY = 64 * 1024
HINT = (
    "from inside: POST /v1/checkpoint, GET /v1/checkpoints, POST /v1/checkpoints/{id}/restore, GET /v1/info"
)


def create_inner_app(spec: SpriteSpec) -> Starlette:
    """Return the app of one sprite."""

    async def info(request: Request) -> Response:
        return JSONResponse({"id": spec.sprite_id, "name": spec.name, "hostname": spec.hostname})

    async def hand_on(request: Request) -> Response:
        return await _hand_on(spec, request)

    async def refuse(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return error_response(status, f"{request.method} {request.url.path} is not served here", HINT)

    return Starlette(
        routes=[
            Route("/v1/info", info, methods=["GET"]),
            Route("/v1/checkpoint", hand_on, methods=["POST"]),
            Route("/v1/checkpoints", hand_on, methods=["GET"]),
            Route("/v1/checkpoints/{id}", hand_on, methods=["GET"]),
            Route("/v1/checkpoints/{id}/restore", hand_on, methods=["POST"]),
        ],
        exception_handlers={404: refuse, 405: refuse},
    )


async def _hand_on(spec: SpriteSpec, request: Request) -> Response:
    if request.path_params.get("id") in (".", ".."):
        return error_response(404, "no such checkpoint", HINT)
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            return error_response(413, "the request is too large", "a checkpoint's comment is short")
    target = f"/v1/sprites/{quote(spec.name, safe='')}{quote(request.url.path.removeprefix('/v1'))}"
    if request.url.query:
        target += f"?{request.url.query}"
    exchange = _Exchange(spec)
    try:
        status, kind = await exchange.send(request.method, target, body)
    except (OSError, h11.RemoteProtocolError):
        await exchange.close()
        hint = "the sprite itself goes on; try again in a moment"
        return error_response(503, "the Spriggan server does not answer", hint)
    return StreamingResponse(exchange.body(), status, media_type=kind)


class _Exchange:
    """One request to the server and its response."""

    def __init__(self, spec: SpriteSpec) -> None:
        self._spec = spec
        self._connection = h11.Connection(h11.CLIENT)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, target: str, body: bytes) -> tuple[int, str]:
        """Send the request; return status and content type of the response."""
        self._reader, self._writer = await asyncio.open_unix_connection(self._spec.server_socket)
        headers = [
            ("Host", "spriggan"),
            ("Authorization", f"Bearer {self._spec.capability}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        events: tuple[h11.Event, ...] = (
            h11.Request(method=method, target=target, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self._writer.write(self._connection.send(event) or b"")
        await self._writer.drain()
        while True:
            answer = await self._next()
            if isinstance(answer, h11.Response):
                kind = dict(answer.headers).get(b"content-type", b"application/json")
                return answer.status_code, kind.decode("latin-1")
            if isinstance(answer, h11.ConnectionClosed):
                raise ConnectionError("the server closed the connection")

    async def body(self) -> AsyncIterator[bytes]:
        """The response's body, as it comes."""
        try:
            while True:
                event = await self._next()
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
                elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                    return
        finally:
            await self.close()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None

    async def _next(self) -> h11.Event:
        reader = self._reader
        if reader is None:
            raise ConnectionError("not connected")
        while True:
            event = self._connection.next_event()
            if event is h11.NEED_DATA:
                self._connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Event):
                return event
