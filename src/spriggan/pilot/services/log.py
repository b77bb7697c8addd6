"""What a service puts out: lines in a file on the sprite's disk, and the latest in memory for followers."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from spriggan.pilot.services.logfile import LogFile

MEMORY = 256 << 10  # bytes of the latest events, for those who follow
MAX_LINE = 16 << 10  # a longer one is cut in pieces
_LINE = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?)Z \[(stdout|stderr)\] ?(.*)", re.DOTALL)
_OVERHEAD = 100

log = logging.getLogger(__name__)

Event = dict[str, Any]


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) >= MAX_LINE:
            lines.append(self._rest)
            self._rest = b""
        return [line[at : at + MAX_LINE] for line in lines for at in range(0, max(len(line), 1), MAX_LINE)]

    def end(self) -> list[bytes]:
        """What is left when nothing more comes."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class ServiceLog:
    """The log of one service."""

    def __init__(self, file: LogFile, memory: int = MEMORY) -> None:
        self._file = file
        self._memory = memory
        self._writing = asyncio.Lock()
        self._events: deque[Event] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._complaint = ""
        self.end = 0  # the number of the next event

    @property
    def path(self) -> str:
        """The file's path in the sprite."""
        return self._file.inside

    async def write(self, stream: str, lines: list[bytes]) -> None:
        """Keep lines of ``stdout`` or ``stderr``. One that the disk does not take is still shown to followers."""
        if not lines:
            return
        now = time.time()
        async with self._writing:
            try:
                # In a thread: a disk can be slow, and the pilot must not be.
                await asyncio.to_thread(self._append, stream, lines, now)
                self._complaint = ""
            except OSError as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    log.warning("%s cannot be written: %s", self.path, error)
            # More lines than are kept would only take time.
            left_out = max(0, len(lines) - self._memory // _OVERHEAD)
            self.end += left_out
            if left_out:
                self._events.clear()
                self._size = 0
            for line in lines[left_out:]:
                self._add(_output(stream, line, now))
        self._wake()

    def note(self, kind: str, **fields: Any) -> None:
        """Tell followers that something happened to the service."""
        self._add({"type": kind, **fields, "timestamp": _milliseconds(time.time())})
        self._wake()

    async def history(self, lines: int) -> tuple[list[Event], int]:
        """The last lines of the file, and from where on to follow so that none is missed or seen twice."""
        async with self._writing:
            position = self.end
            try:
                found = await asyncio.to_thread(self._file.tail, lines)
            except OSError as error:
                log.warning("%s cannot be read: %s", self.path, error)
                found = []
        return [_parsed(line) for line in found], position

    async def follow(self, position: int, over: asyncio.Task[None]) -> AsyncIterator[Event]:
        """Events from ``position`` on, and after the end of ``over`` only those that there are by then.

        Who follows more slowly than events come misses some, and is told how many.
        """
        last: int | None = None
        while True:
            if last is None and over.done():
                last = self.end
            if last is not None and position >= last:
                return
            first = self.end - len(self._events)
            if position < first:
                words = f"[spriggan: {first - position} lines are left out here; see {self.path}]"
                yield _output("stderr", words.encode(), time.time())
                position = first
            elif position < self.end:
                yield self._events[position - first]
                position += 1
            else:
                changed = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait((changed, over), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()

    async def close(self) -> None:
        """Let go of the file for good."""
        await asyncio.to_thread(self._file.close)

    def _append(self, stream: str, lines: list[bytes], when: float) -> None:
        stamp = datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        prefix = f"{stamp}Z [{stream}] ".encode()
        self._file.append(b"".join(prefix + line + b"\n" for line in lines))

    def _add(self, event: Event) -> None:
        self._events.append(event)
        self._size += _OVERHEAD + len(event.get("data", ""))
        while self._size > self._memory and len(self._events) > 1:
            self._size -= _OVERHEAD + len(self._events.popleft().get("data", ""))
        self.end += 1

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _output(stream: str, line: bytes, when: float) -> Event:
    return {
        "type": stream,
        "data": line.decode(errors="replace") + "\n",
        "timestamp": _milliseconds(when),
    }


def _parsed(line: bytes) -> Event:
    """A line of the file, which somebody may have edited."""
    match = _LINE.fullmatch(line)
    if match:
        try:
            when = datetime.fromisoformat(match[1].decode() + "+00:00").timestamp()
            return _output(match[2].decode(), match[3], when)
        except ValueError:
            pass
    return _output("stdout", line, 0)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
