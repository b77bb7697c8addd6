"""The event loop's side of the files fork server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

from spriggan.linux import process
from spriggan.pilot.files import server

CHUNK = 256 * 1024
LINE_LIMIT = 128 << 20  # a listing is one line
_LENGTH = struct.Struct("!I")


class FileError(Exception):
    """An operation failed inside the sprite. ``code`` is a name from errno.h."""

    def __init__(self, code: str, message: str, path: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path


class FilesHelper:
    """Does file operations in the sprite, as one of its users."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests

    @classmethod
    def start(cls) -> FilesHelper:
        """Fork the server. Call it before there is an event loop or a second thread."""
        return cls(server.start())

    async def ask(self, init_pid: int, user: str, op: str, path: str, **arguments: object) -> dict[str, Any]:
        """Do an operation that needs no data; return its reply. Raises ``FileError``."""
        async with self._connect(init_pid, user, op, path, arguments) as (reader, _):
            return await _reply(reader, path)

    @contextlib.asynccontextmanager
    async def reading(
        self, init_pid: int, user: str, path: str, wanted: list[int | None] | None
    ) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """Yield what is known of the file, and its bytes. Raises ``FileError``."""
        async with self._connect(init_pid, user, "read", path, {"range": wanted}) as (reader, _):
            reply = await _reply(reader, path)
            yield reply, _bytes(reader, reply["length"])

    async def write(
        self,
        init_pid: int,
        user: str,
        path: str,
        body: AsyncIterator[bytes],
        *,
        mode: int | None,
        parents: bool,
    ) -> dict[str, Any]:
        """Write a whole file; it appears when all of it is there. Raises ``FileError``."""
        arguments: dict[str, object] = {"mode": mode, "parents": parents}
        async with self._connect(init_pid, user, "write", path, arguments) as (reader, writer):
            reply = asyncio.create_task(_reply(reader, path))
            try:
                await _upload(writer, body, reply)
                return await reply
            finally:
                reply.cancel()

    @contextlib.asynccontextmanager
    async def _connect(
        self, init_pid: int, user: str, op: str, path: str, arguments: dict[str, object]
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            request = {"init_pid": init_pid, "user": user, "op": op, "path": path, **arguments}
            await self._send(json.dumps(request).encode(), theirs.fileno())
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=CHUNK)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def _send(self, message: bytes, fd: int) -> None:
        while True:
            try:
                socket.send_fds(self._requests, [message], [fd])
                return
            except BlockingIOError:
                await process.ready(self._requests.fileno(), writing=True)


async def _upload(
    writer: asyncio.StreamWriter, body: AsyncIterator[bytes], reply: asyncio.Task[dict[str, Any]]
) -> None:
    """Send the body in pieces and the mark that it is whole; stop when the answer is there already."""
    with contextlib.suppress(ConnectionError):  # it gave up; its reply says why
        async for piece in body:
            for start in range(0, len(piece), CHUNK):
                if reply.done():
                    return
                part = piece[start : start + CHUNK]
                writer.write(_LENGTH.pack(len(part)) + part)
                await writer.drain()
        writer.write(_LENGTH.pack(0))
        await writer.drain()


async def _reply(reader: asyncio.StreamReader, path: str) -> dict[str, Any]:
    try:
        line = await _line(reader)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise FileError("EIO", "the sprite ended during the operation", path) from error
    reply: dict[str, Any] = json.loads(line)
    if "code" in reply:
        raise FileError(reply["code"], reply["error"], reply["path"])
    return reply


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The reply, which may be longer than what the stream is allowed to hold at a time."""
    line = bytearray()
    while len(line) < LINE_LIMIT:
        try:
            line += await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            line += await reader.readexactly(error.consumed)
        else:
            return bytes(line)
    raise ConnectionError("the reply is too long")


async def _bytes(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    left = length
    while left > 0:
        data = await reader.read(min(left, CHUNK))
        if not data:
            return  # the file shrank meanwhile; the response ends short, which its reader notices
        left -= len(data)
        yield data
