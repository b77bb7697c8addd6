"""Requests to the server, on behalf of the sprite and with its capability."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import quote

import h11
from starlette.responses import Response, StreamingResponse

from spriggan.pilot.request import error_response
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
        exchange = _Exchange(self._spec)
        try:
            status, kind = await exchange.send(method, target, body)
        except (OSError, h11.RemoteProtocolError):
            await exchange.close()
            return self.unavailable()
        return StreamingResponse(exchange.body(), status, media_type=kind)

    async def get(self, path: str) -> bytes:
        """The body of the server's answer. Raises ``OSError`` if that is no success."""
        exchange = _Exchange(self._spec)
        try:
            async with asyncio.timeout(PATIENCE_S):
                status, _ = await exchange.send("GET", self._target(path), b"")
                body = bytearray()
                async for piece in exchange.body():
                    body += piece
                    if len(body) > MAX_ANSWER:
                        raise OSError("the server's answer is too long")
        finally:
            await exchange.close()
        if status != 200:
            raise OSError(f"the server answered {status}")
        return bytes(body)

    def unavailable(self) -> Response:
        """The answer while the server is down."""
        hint = "the sprite itself goes on; try again in a moment"
        return error_response(503, "the Spriggan server does not answer", hint)

    def _target(self, path: str) -> str:
        return f"/v1/sprites/{quote(self._spec.name, safe='')}/{quote(path)}"


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
