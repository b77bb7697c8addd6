"""The event loop's side of the files fork server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from spriggan.linux import process
from spriggan.pilot.files import server
from spriggan.pilot.files.answers import CHUNK, LENGTH
from spriggan.pilot.files.patience import patiently

LINE_LIMIT = 128 << 20  # a listing is one line
IDLE_S = 30.0  # how long the server waits for more to do: it takes memory, and few sprites need it
# How long a child that is no longer needed has to end by itself, and then to tidy up.
LINGER_S = 1.0
TIDY_S = 3.0

# Where there is one way out.
_HINTS = {
    "ENOENT": "list the directory above to see what is there",
    "EACCES": "as root it may go: asRoot=true",
    "EPERM": "as root it may go: asRoot=true",
    "ENOTEMPTY": "to delete what is in it, too: recursive=true",
    "EISDIR": "a directory takes recursive=true, where that makes sense, or is listed",
    "ENOTDIR": "a part of the path that is not the last one is a file",
    "ENAMETOOLONG": "each part of a path has at most 255 bytes",
    "ELOOP": "the path leads through links in a circle",
    "EINVAL": "look at the paths, names and ids of the request; a directory cannot go into itself",
    "ETIMEDOUT": "a program in the sprite that serves a file system (FUSE) hangs; end it, or unmount it",
    "ENOSPC": "free some space on the sprite's disk",
}


class FileError(Exception):
    """An operation failed inside the sprite. ``code`` is a name from errno.h."""

    def __init__(self, code: str, message: str, path: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = path

    def body(self) -> dict[str, Any]:
        """The error as clients read it."""
        words = self.message.lower()
        return {
            "error": words,
            "code": self.code,
            "message": words,
            "hint": _HINTS.get(self.code, ""),
            "path": self.path,
        }


class NotRunning(Exception):
    """The sprite is down, or between two lives (503)."""


class FilesHelper:
    """Does file operations in the sprite, as one of its users: each in a child of its own, so that one
    that hangs (in a file system of the user's, say) holds up no other.

    The children's server is forked when there is something to do, and ends when there was nothing for a while.
    """

    def __init__(self) -> None:
        self._server: server.Server | None = None
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._children: set[int] = set()  # descriptors of the processes
        self._endings: set[asyncio.Task[None]] = set()
        self._paused = False

    async def ask(self, init_pid: int, user: str, op: str, path: str, **arguments: object) -> dict[str, Any]:
        """Do an operation that needs no data; return its reply. Raises ``FileError``."""
        async with self._connect(init_pid, user, op, path, arguments) as (child, reader, _):
            return await _reply(child, reader, path)

    @contextlib.asynccontextmanager
    async def reading(
        self, init_pid: int, user: str, path: str, wanted: list[int | None] | None
    ) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """Yield what is known of the file, and its bytes. Raises ``FileError``.

        A ``length`` of None: nobody knows how many will come.
        """
        async with self._connect(init_pid, user, "read", path, {"range": wanted}) as (child, reader, _):
            reply = await _reply(child, reader, path)
            length = reply["length"]
            yield reply, _pieces(child, reader) if length is None else _bytes(child, reader, length)

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
        async with self._connect(init_pid, user, "write", path, arguments) as (child, reader, writer):
            line = asyncio.create_task(_line(reader))
            try:
                with _noticing(path):
                    await _upload(child, writer, body, line)
                    return _understood(await patiently(child, lambda: asyncio.shield(line)))
            finally:
                line.cancel()

    @contextlib.asynccontextmanager
    async def watching(
        self, init_pid: int, user: str
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Yield a conversation with a watcher (see ``watching``). Raises ``FileError``."""
        async with self._connect(init_pid, user, "watch", "", {}) as (child, reader, writer):
            await _reply(child, reader, "")
            yield reader, writer

    @property
    def busy(self) -> bool:
        """Whether an operation is under way, or what it left."""
        return bool(self._users or self._children or self._endings)

    async def pause(self) -> None:
        """End all operations, and refuse new ones: a child holds the sprite's mounts."""
        self._paused = True
        children = [os.dup(child) for child in self._children]  # who sees one off closes it
        await asyncio.gather(*(self._end(child) for child in children))
        for child in children:
            os.close(child)

    def resume(self) -> None:
        """Take operations again."""
        self._paused = False

    @contextlib.asynccontextmanager
    async def _connect(
        self, init_pid: int, user: str, op: str, path: str, arguments: dict[str, object]
    ) -> AsyncIterator[tuple[int, asyncio.StreamReader, asyncio.StreamWriter]]:
        """Yield a descriptor of the child that does it, and a conversation with that."""
        if self._paused:
            raise NotRunning
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            with theirs, self._serving() as requests:
                request = {"init_pid": init_pid, "user": user, "op": op, "path": path, **arguments}
                await _send(requests, json.dumps(request).encode(), theirs.fileno())
        except BaseException:
            ours.close()
            raise
        meeting = asyncio.create_task(self._meet(ours))
        try:
            child = await asyncio.shield(meeting)
        except asyncio.CancelledError:
            self._later(self._part(meeting))
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=CHUNK)
        try:
            yield child, reader, writer
        finally:
            writer.close()
            self._later(self._see_off(child))

    async def _meet(self, ours: socket.socket) -> int:
        """Take from a new child what it can be ended with. Raises ``NotRunning`` if none could be made."""
        await process.ready(ours.fileno())
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        if not fds:
            ours.close()
            raise NotRunning
        self._children.add(fds[0])
        return fds[0]

    async def _part(self, meeting: asyncio.Task[int]) -> None:
        """Whoever wanted the child is gone before it came."""
        with contextlib.suppress(NotRunning):
            await self._see_off(await meeting)

    async def _see_off(self, child: int) -> None:
        """See a child that is no longer needed to its end."""
        try:
            if not await _ended(child, LINGER_S):
                await self._end(child)
        finally:
            self._children.discard(child)
            os.close(child)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _end(self, child: int) -> None:
        """SIGTERM, for it to tidy up; SIGKILL for what hangs in a system call."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(child, number)
            if await _ended(child, TIDY_S):
                return

    @contextlib.contextmanager
    def _serving(self) -> Iterator[socket.socket]:
        """Yield where to ask for a child."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._server is None:
            self._server = server.start()
        self._users += 1
        try:
            yield self._server.requests
        finally:
            self._users -= 1
            if not self._users:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._let_go)

    def _let_go(self) -> None:
        """Let the server end, when the last of its children has."""
        idle, self._server, self._idle = self._server, None, None
        if idle is not None:
            idle.requests.close()
            self._later(_reap(idle.pid))


async def _reap(pid: int) -> None:
    await process.wait(pid)


async def _send(requests: socket.socket, message: bytes, fd: int) -> None:
    while True:
        try:
            socket.send_fds(requests, [message], [fd])
            return
        except BlockingIOError:
            await process.ready(requests.fileno(), writing=True)


async def _ended(child: int, timeout: float) -> bool:
    """Whether the process ends in time. It is not ours to reap."""
    fd = os.dup(child)  # several may wait for the same
    try:
        async with asyncio.timeout(timeout):
            await process.ready(fd)
    except TimeoutError:
        return False
    finally:
        os.close(fd)
    return True


async def _upload(
    child: int, writer: asyncio.StreamWriter, body: AsyncIterator[bytes], line: asyncio.Task[bytes]
) -> None:
    """Send the body in pieces and the mark that it is whole; stop when the answer is there already."""
    with contextlib.suppress(ConnectionError):  # it gave up; its reply says why
        async for piece in body:
            for start in range(0, len(piece), CHUNK):
                if line.done():
                    return
                part = piece[start : start + CHUNK]
                writer.write(LENGTH.pack(len(part)) + part)
                await patiently(child, writer.drain)
        writer.write(LENGTH.pack(0))
        await patiently(child, writer.drain)


async def _reply(child: int, reader: asyncio.StreamReader, path: str) -> dict[str, Any]:
    line = asyncio.create_task(_line(reader))
    try:
        with _noticing(path):
            return _understood(await patiently(child, lambda: asyncio.shield(line)))
    finally:
        line.cancel()


@contextlib.contextmanager
def _noticing(path: str) -> Iterator[None]:
    """Say of a child that ends without a word, or hangs, what it comes to."""
    try:
        yield
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise FileError("EIO", "the sprite ended during the operation", path) from error
    except TimeoutError as error:
        raise FileError("ETIMEDOUT", "the file system does not answer", path) from error


def _understood(line: bytes) -> dict[str, Any]:
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


async def _bytes(child: int, reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    """As many bytes. ``ConnectionError`` if the child hangs before it has sent them."""
    left = length
    while left > 0:
        data = await _next(child, partial(reader.read, min(left, CHUNK)))
        if not data:
            return  # the file shrank meanwhile; the response ends short, which its reader notices
        left -= len(data)
        yield data


async def _pieces(child: int, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Pieces with their lengths, up to the one of length 0. ``ConnectionError`` if they end before it."""
    while length := LENGTH.unpack(await _next(child, partial(reader.readexactly, LENGTH.size)))[0]:
        yield await _next(child, partial(reader.readexactly, length))


async def _next(child: int, wait: Callable[[], Awaitable[bytes]]) -> bytes:
    try:
        return await patiently(child, wait)
    except (asyncio.IncompleteReadError, TimeoutError) as error:
        raise ConnectionError("the file could not be read to its end") from error
