"""A command's standard input: what clients send, written as fast as the command reads."""

from __future__ import annotations

import asyncio
import os
from collections import deque

# So much may wait for the command before the client is made to wait, which is all that it takes to
# be fast. A client that waits is not heard: its signals, its next operation and its pings, without
# whose answers it gives the connection up, come behind its input. So for a command that is slow to
# read more is taken, as long as all commands of a sprite together do not cost too much memory.
WAITING = 256 << 10
SLOW_AFTER_S = 2.0
SLOW_WAITING = 16 << 20
SLOW_TOGETHER = 64 << 20


class Input:
    """The writing end of a pipe or terminal; owns the descriptor, which must not block.

    Several clients may write at once: what each hands over stays together.
    """

    _together = 0  # bytes that wait, of all inputs

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._slow = False
        self._queue: deque[memoryview] = deque()
        self._size = 0
        self._ending = False
        self._watching = False
        self._progress = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Hand over ``data``; waits while too much is waiting. What comes after the end is dropped."""
        while self._full and self._fd >= 0:
            self._progress.clear()
            try:
                async with asyncio.timeout(SLOW_AFTER_S):
                    await self._progress.wait()
            except TimeoutError:
                self._slow = True
        if self._fd >= 0 and not self._ending and data:
            self._queue.append(memoryview(data))
            self._count(len(data))
            self._flush()

    def end(self) -> None:
        """Close, once all that was handed over is written."""
        if self._fd >= 0:
            self._ending = True
            self._flush()

    def close(self) -> None:
        """Close now and drop what is waiting."""
        if self._fd >= 0:
            self._watch(False)
            os.close(self._fd)
            self._fd = -1
        self._queue.clear()
        self._count(-self._size)
        self._progress.set()

    @property
    def _full(self) -> bool:
        if self._slow:
            return self._size >= SLOW_WAITING or Input._together >= SLOW_TOGETHER
        return self._size >= WAITING

    def _count(self, size: int) -> None:
        self._size += size
        Input._together += size

    def _flush(self) -> None:
        try:
            while self._queue:
                written = os.write(self._fd, self._queue[0])
                self._count(-written)
                self._queue[0] = self._queue[0][written:]
                if not self._queue[0]:
                    self._queue.popleft()
        except BlockingIOError:
            self._watch(True)
        except OSError:
            self.close()  # nobody reads any more
            return
        if self._size < WAITING:
            self._slow = False
            self._progress.set()
        if not self._queue:
            self._watch(False)
            if self._ending:
                self.close()

    def _watch(self, wanted: bool) -> None:
        if wanted == self._watching:
            return
        self._watching = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_writer(self._fd, self._flush)
        else:
            loop.remove_writer(self._fd)
