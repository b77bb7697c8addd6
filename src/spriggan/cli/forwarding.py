"""TCP connections of this machine, carried into a sprite over a WebSocket each."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json

import click
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from spriggan.cli.endpoint import Endpoint
from spriggan.cli.output import printable
from spriggan.cli.websocket import open_socket
from spriggan.errors import Broken, InvalidRequest, SprigganError

LOCAL = "127.0.0.1"
CHUNK = 64 * 1024
EOF = '{"type":"eof"}'


class Forwarding:
    """Listeners on this machine, each for a port of the sprite at ``path`` (``/v1/sprites/NAME``)."""

    def __init__(self, endpoint: Endpoint, path: str) -> None:
        self._endpoint = endpoint
        self._path = path
        self._servers: dict[int, asyncio.Server] = {}
        self._connections: set[asyncio.Task[None]] = set()

    async def offer(self, port: int) -> int | None:
        """Listen on the number of the sprite's ``port``, or on a free one; None if it is offered already."""
        if port in self._servers:
            return None
        try:
            return await self.listen(port, "localhost", port)
        except InvalidRequest:
            return await self.listen(0, "localhost", port)

    async def listen(self, local: int, host: str, port: int) -> int:
        """Carry connections to ``local`` (0: any) to ``host`` and ``port`` of the sprite; return the number."""

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._serve(reader, writer, host, port))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        try:
            server = await asyncio.start_server(accepted, LOCAL, local, limit=CHUNK)
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise InvalidRequest(
                f"port {local} of this machine is taken"
                if taken
                else f"cannot listen on port {local}: {error}",
                hint=f"choose another one: {local + 10000 if local < 50000 else 8080}:{port}",
            ) from error
        self._servers[port] = server
        return int(server.sockets[0].getsockname()[1])

    async def stop(self, port: int) -> None:
        """Listen no more for the sprite's ``port``; connections go on."""
        if (server := self._servers.pop(port, None)) is not None:
            server.close()

    async def close(self) -> None:
        """End all of it."""
        for port in list(self._servers):
            await self.stop(port)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
    ) -> None:
        try:
            await carry(self._endpoint, self._path, (host, port), reader, writer)
        except SprigganError as error:
            click.echo(f"spriggan: {printable(error.message)}", err=True)
        except OSError:
            return  # the local program went away
        finally:
            writer.close()


async def carry(
    endpoint: Endpoint,
    path: str,
    target: tuple[str, int],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Connect to ``target`` (host, port) as seen from the sprite at ``path``, and move bytes until both ends have
    ended. Raises ``Refused``, ``Broken`` or ``Unavailable``.
    """
    host, port = target
    async with await open_socket(endpoint, f"{path}/proxy") as socket:
        await socket.send(json.dumps({"host": host, "port": port, "half_close": True}))
        answer = json.loads(await socket.recv())
        if answer.get("status") != "connected":
            raise Broken(
                str(answer.get("message") or f"the sprite does not connect to {host} port {port}"),
                hint=str(answer.get("hint") or ""),
            )
        upward = asyncio.create_task(_up(reader, socket, half_close=answer.get("half_close") is True))
        try:
            await _down(socket, writer)
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)


async def _up(reader: asyncio.StreamReader, socket: ClientConnection, *, half_close: bool) -> None:
    with contextlib.suppress(ConnectionClosed):
        while data := await reader.read(CHUNK):
            await socket.send(data)
        if half_close:
            await socket.send(EOF)
        else:
            await socket.close()


async def _down(socket: ClientConnection, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                writer.write(message)
                await writer.drain()
            elif message == EOF or json.loads(message).get("type") == "eof":
                if writer.can_write_eof():
                    writer.write_eof()
