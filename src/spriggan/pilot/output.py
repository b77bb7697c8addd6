"""A command's output: read to its end, so that nothing a command wrote is ever lost."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from typing import Protocol

from spriggan.pilot.readiness import readable
from spriggan.wire.frames import MAX_PAYLOAD

GRACE_S = 0.5
DISCARD_PAUSE_S = 0.1


class Sink(Protocol):
    """Where output goes."""

    async def room(self) -> None:
        """Return when more output may come: what nobody reads must not be read from the command."""

    async def put(self, stream: int, data: bytes) -> None:
        """Take ``data``."""


class Output:
    """One descriptor that a command writes to (a pipe or a terminal); owns it, and it must not block.

    After the command has ended, everything it wrote is in the descriptor already, and is read.
    But its children may hold the descriptor open for as long as they like, so its end is waited
    for only shortly.
    """

    def __init__(self, fd: int, stream: int, sink: Sink) -> None:
        self.fd = fd
        self._stream = stream
        self._sink = sink
        self._over = False
        self._changed = asyncio.Event()
        self._left = 0  # bytes that may still be the command's own

    def command_ended(self) -> None:
        """Nothing is written any more but by what the command left behind."""
        self._left = _capacity(self.fd)
        self._over = True
        self._changed.set()

    async def copy(self) -> bool:
        """Copy to the sink. True at the end; False if others hold the descriptor open after the command."""
        deadline = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await self._sink.room()
            over = self._over  # looked at before reading: what is there now includes the last word
            data = read(self.fd)
            if data == b"":
                return True
            if data:
                await self._sink.put(self._stream, data)
                self._left -= len(data)
            if over and (data is None or self._left <= 0):
                deadline = deadline or loop.time() + GRACE_S
                if loop.time() >= deadline:
                    return False
            if data is None:
                await self._wait(deadline - loop.time() if deadline else None)
            else:
                await asyncio.sleep(0)  # a command that writes without pause must not stop the rest

    async def _wait(self, seconds: float | None) -> None:
        """Until there is something to read, the command has ended, or the time is up."""
        self._changed.clear()
        loop = asyncio.get_running_loop()
        loop.add_reader(self.fd, self._changed.set)
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self.fd)


async def discard(fd: int) -> None:
    """Read and drop what is left to come, and close ``fd`` at its end.

    What a command left running in the background would be killed by SIGPIPE otherwise. Slowly:
    nobody wants the output, so it shall cost nothing.
    """
    try:
        while read(fd) != b"":
            await readable(fd)
            await asyncio.sleep(DISCARD_PAUSE_S)
    finally:
        os.close(fd)


def read(fd: int) -> bytes | None:
    """What can be read now; None if nothing yet, empty at the end."""
    try:
        return os.read(fd, MAX_PAYLOAD)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == errno.EIO:  # how a terminal ends, when nobody has it open any more
            return b""
        raise


def _capacity(fd: int) -> int:
    """How much may be waiting in ``fd``."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    except OSError:
        return 1 << 20  # a terminal holds less
