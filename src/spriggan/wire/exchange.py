"""One HTTP request over a unix socket, and its answer: how server and pilot ask each other.

A whole HTTP library would cost every server more memory than all that it does with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType

import h11

READ_SIZE = 64 << 10


class Exchange:
    """A connection for one request; use it as an async context manager.

    All that the other end may do wrong is an ``OSError``, also what is no HTTP.
    """

    def __init__(self, socket: Path | str) -> None:
        self._path = str(socket)
        self._http = h11.Connection(h11.CLIENT)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Exchange:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self, method: str, target: str, body: bytes = b"", *, headers: Iterable[tuple[str, str]] = ()
    ) -> h11.Response:
        """Send the request; return the head of the answer."""
        request = h11.Request(
            method=method,
            target=target,
            headers=[("Host", "spriggan"), ("Content-Length", str(len(body))), *headers],
        )
        parts = (request, h11.Data(data=body), h11.EndOfMessage())
        self._reader, self._writer = await asyncio.open_unix_connection(self._path)
        self._writer.write(b"".join(self._http.send(part) or b"" for part in parts))
        await self._writer.drain()
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise ConnectionError("the connection was closed")

    async def body(self) -> AsyncIterator[bytes]:
        """The body of the answer, as it comes."""
        while True:
            event = await self._next()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return

    async def close(self) -> None:
        """Let go of the connection, whatever is still to come."""
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
            self._writer = None

    async def _next(self) -> h11.Event:
        if self._reader is None:
            raise ConnectionError("nothing was asked yet")
        try:
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._reader.read(READ_SIZE))
                elif isinstance(event, h11.Event):
                    return event
                else:  # h11.PAUSED: it says more than was asked for
                    raise ConnectionError("the answer is no HTTP")
        except h11.RemoteProtocolError as error:
            raise ConnectionError(str(error)) from error


async def ask(
    socket: Path | str,
    method: str,
    target: str,
    body: bytes = b"",
    *,
    headers: Iterable[tuple[str, str]] = (),
    limit: int,
) -> tuple[int, bytes]:
    """The status and the body, at most ``limit`` bytes, of the answer. Raises ``OSError``."""
    async with Exchange(socket) as exchange:
        answer = await exchange.send(method, target, body, headers=headers)
        content = bytearray()
        async for piece in exchange.body():
            content += piece
            if len(content) > limit:
                raise OSError("the answer is too long")
        return answer.status_code, bytes(content)
