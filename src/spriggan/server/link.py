"""A connection to a pilot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from types import TracebackType

from spriggan.errors import Unavailable

READ_SIZE = 64 << 10
CONNECT_TIMEOUT = 10.0


class Link:
    """A connection to the pilot at ``path``; use it as an async context manager.

    Its two directions fail by themselves: a pilot that has said all it has to say may close
    before it has read everything, and then writing fails while its last words are still to be
    read. asyncio's streams drop what they hold when a write fails, so this is a plain socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Link:
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
        self._connected.close()

    async def read(self) -> bytes:
        """What comes next; nothing at the end, also when that is not a tidy one."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._connected, READ_SIZE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, as fast as the pilot reads. Raises ``ConnectionError`` if it no longer does."""
        await asyncio.get_running_loop().sock_sendall(self._connected, data)

    def end(self) -> None:
        """Tell the pilot that nothing more will come."""
        with contextlib.suppress(OSError):
            self._connected.shutdown(socket.SHUT_WR)

    @property
    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("the link is used outside of its block")
        return self._socket
