"""A connection to a pilot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path
from types import TracebackType

from spriggan.errors import Unavailable

READ_SIZE = 64 << 10
CONNECT_TIMEOUT = 10.0


class Link:
    """A connection to the pilot at ``path``; use it as an async context manager. ``over`` makes one of a socket
    that is connected already.

    Its two directions fail by themselves: a pilot that has said all it has to say may close
    before it has read everything, and then writing fails while its last words are still to be
    read. asyncio's streams drop what they hold when a write fails, so this is a plain socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self.heard = False  # whether anything has come
        self.made_at = time.monotonic()  # the connection

    @classmethod
    def over(cls, connection: socket.socket) -> Link:
        """A link that is open, and closes ``connection``, which does not block."""
        link = cls(Path())
        link._socket = connection
        return link

    async def __aenter__(self) -> Link:
        if self._socket is not None:
            return self
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.get_running_loop().sock_connect(connection, str(self._path))
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            raise Unavailable(
                f"the sprite's pilot does not answer ({error or type(error).__name__})",
                hint="try again; if it stays so, 'spriggan stop NAME' and use the sprite again",
            ) from error
        self._socket = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def release(self) -> Link:
        """Another link, which has the connection from now on: leaving this one's block does not close it."""
        other = Link.over(self._connected)
        other.made_at = self.made_at
        self._socket = None
        return other

    def close(self) -> None:
        """Close the connection, if it is still this link's."""
        if self._socket is not None:
            self._socket.close()

    def fileno(self) -> int:
        return self._connected.fileno()

    @property
    def silent(self) -> bool:
        """Whether nothing has come that was not read, not even the end."""
        with contextlib.suppress(OSError):
            try:
                self._connected.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                return True
        return False

    async def read(self) -> bytes:
        """What comes next; nothing at the end, also when that is not a tidy one."""
        try:
            data = await asyncio.get_running_loop().sock_recv(self._connected, READ_SIZE)
        except ConnectionError:
            return b""
        self.heard = self.heard or bool(data)
        return data

    async def read_passed(self) -> tuple[bytes, list[int]]:
        """What comes next, with the descriptors that come with it, which the caller closes."""
        while True:
            try:
                data, passed, _, _ = socket.recv_fds(self._connected, READ_SIZE, 1, socket.MSG_CMSG_CLOEXEC)
                return data, passed
            except BlockingIOError:
                await self._readable()
            except ConnectionError:
                return b"", []

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, as fast as the pilot reads. Raises ``ConnectionError`` if it no longer does."""
        await asyncio.get_running_loop().sock_sendall(self._connected, data)

    def end(self) -> None:
        """Tell the pilot that nothing more will come."""
        with contextlib.suppress(OSError):
            self._connected.shutdown(socket.SHUT_WR)

    async def _readable(self) -> None:
        """Wait until there is something to read, or the end."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._connected, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._connected)

    @property
    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the link is used outside of its block")
        return self._socket
