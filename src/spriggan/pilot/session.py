"""One command and all who listen to it.

The command's output goes into a spool, and every attachment reads that at its own speed. The
command is made to wait only when all attachments are behind: a slow client neither costs
memory nor stops the others, and the only client of a command never misses a byte. With no
client the command runs on, and of its output the newest part is kept.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shlex
import signal
import struct
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spriggan.linux import process as processes
from spriggan.pilot.command import FOREVER, Command
from spriggan.pilot.input import Input
from spriggan.pilot.launch import Launched, launch
from spriggan.pilot.output import Output, discard
from spriggan.pilot.process import Container, ExecError
from spriggan.pilot.rate import Rate
from spriggan.pilot.spool import Chunk, Lost, Reader, Spool
from spriggan.wire.frames import Stream

log = logging.getLogger(__name__)

AHEAD = 1 << 20  # how far a command may be ahead of its fastest client
HANGUP_GRACE_S = 10.0
SPOOL_RETRY_S = 1.0
SHOWN_COMMAND = 1024


class Attachment:
    """One client of a session."""

    def __init__(self, session: Session, *, is_owner: bool) -> None:
        self.session = session
        self.is_owner = is_owner
        self.saw_exit = False
        self.reader = Reader(session.spool)
        self._news = asyncio.Event()

    def notify(self) -> None:
        self._news.set()

    async def next(self, patience: float) -> list[Chunk] | Lost | int | None:
        """The next output, what was lost, the exit code as the last of all, or None after ``patience`` seconds."""
        while True:
            self._news.clear()
            taken = self.reader.take()
            if taken is not None:
                self.session.reader_advanced()
                return taken
            if self.session.exit_code is not None:
                return self.session.exit_code
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                return None


class Session:
    """A command, from its start until its exit code is known and its output complete."""

    def __init__(self, id: str, command: Command, spool: Spool, on_idle: Callable[[Session], None]) -> None:
        self.id = id
        self.command = command
        self.spool = spool
        self.created = time.time()
        self.last_activity = self.created
        self.rows, self.cols = command.rows, command.cols
        self.exit_code: int | None = None
        self.pid = 0  # of the process on the host, as long as it runs
        self.attachments: list[Attachment] = []
        self._on_idle = on_idle  # called when a client has left, and when it is over
        self._input: Input | None = None
        self._terminal: int | None = None
        self._rate = Rate()
        self._ended = asyncio.Event()  # the process is gone; its output may not be complete yet
        self._advanced = asyncio.Event()
        self._hangup: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # The command's life

    async def start(self, container: Container) -> None:
        """Start the command. One that cannot be started ends at once, and says why on its stderr."""
        try:
            launched = await launch(container, self.command)
        except (ExecError, OSError) as error:
            code = error.exit_code if isinstance(error, ExecError) else 1
            newline = "\r\n" if self.command.tty else "\n"
            await self.put(Stream.STDERR, f"{error}{newline}".encode(errors="replace"))
            self._ended.set()
            self._over(code)
            return
        self.pid = launched.pid
        self._terminal = launched.terminal
        if launched.input is not None:
            self._input = Input(launched.input)
        self._spawn(self._run(launched))

    async def _run(self, launched: Launched) -> None:
        outputs = [Output(fd, stream, self) for fd, stream in launched.outputs]
        copying = [asyncio.create_task(output.copy()) for output in outputs]
        code = await processes.wait(launched.pid)
        self.pid = 0  # waited for, so the number may be somebody else's from now on
        self._ended.set()
        for output in outputs:
            output.command_ended()
        results = await asyncio.gather(*copying, return_exceptions=True)
        self._terminal = None
        if self._input is not None:
            self._input.close()
        for output, result in zip(outputs, results, strict=True):
            if isinstance(result, BaseException):
                log.error("session %s: reading the output failed", self.id, exc_info=result)
            if result is False and not self.command.tty:
                self._spawn(discard(output.fd))
            else:
                os.close(output.fd)  # of a terminal: hangs up what the command left behind
        self._over(code)

    def _over(self, code: int) -> None:
        self.exit_code = code & 0xFF
        self._cancel_hangup()
        for attachment in self.attachments:
            attachment.notify()
        self._on_idle(self)

    # Output: what ``Output`` calls

    async def room(self) -> None:
        while self.attachments and self._behind() > min(AHEAD, self.spool.capacity // 2):
            self._advanced.clear()
            await self._advanced.wait()

    async def put(self, stream: int, data: bytes) -> None:
        while True:
            try:
                self.spool.append(stream, data)
                break
            except OSError as error:  # the host's disk is full: the command waits
                log.warning("session %s: its output cannot be kept: %s", self.id, error)
                await asyncio.sleep(SPOOL_RETRY_S)
        self._touch(len(data))
        for attachment in self.attachments:
            attachment.notify()

    def reader_advanced(self) -> None:
        self._advanced.set()

    def _behind(self) -> int:
        return self.spool.end - max(attachment.reader.position for attachment in self.attachments)

    # Clients

    @contextmanager
    def attach(self) -> Iterator[Attachment]:
        """A client's attachment, for as long as the block lasts. The first one owns the session."""
        self._cancel_hangup()
        has_owner = any(attachment.is_owner for attachment in self.attachments)
        attachment = Attachment(self, is_owner=not has_owner)
        self.attachments.append(attachment)
        self._advanced.set()
        try:
            yield attachment
        finally:
            self.attachments.remove(attachment)
            self._advanced.set()
            if not self.attachments and self.exit_code is None and self.command.run_on != FOREVER:
                self._hangup = asyncio.get_running_loop().call_later(self.command.run_on, self._hang_up)
            self._on_idle_later(attachment)

    def _on_idle_later(self, attachment: Attachment) -> None:
        if not self.attachments:
            self.seen = attachment.saw_exit
            self._on_idle(self)

    seen = False  # whether the last client to leave had the exit code

    async def write(self, data: bytes) -> None:
        """Input from a client."""
        if self._input is not None:
            self._touch(0)
            await self._input.write(data)

    def end_input(self) -> None:
        """The end of the input; a terminal has none (its users type ^D)."""
        if self._input is not None and not self.command.tty:
            self._input.end()

    def resize(self, rows: int, cols: int) -> None:
        if self._terminal is not None:
            self.rows, self.cols = rows, cols
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    # Its end

    def signal(self, number: int) -> bool:
        """Signal the command's process group, and a terminal's foreground group. False if it has ended."""
        if not self.pid:
            return False
        with suppress(ProcessLookupError):
            if os.getsid(self.pid) == os.getsid(0):
                os.kill(self.pid, number)  # its group is the pilot's own
            else:
                for group in self._groups():
                    with suppress(ProcessLookupError):
                        os.killpg(group, number)
        return True

    def _groups(self) -> set[int]:
        groups = {os.getpgid(self.pid)}
        if self._terminal is not None:
            with suppress(OSError):
                groups.add(os.tcgetpgrp(self._terminal))
        return {group for group in groups if group > 1}

    async def ended(self, patience: float) -> bool:
        """Wait until the process is gone; False if it still runs after ``patience`` seconds."""
        return await _within(patience, self._ended.wait())

    def _hang_up(self) -> None:
        """Nobody came back in time."""
        self._spawn(self._end())

    async def _end(self) -> None:
        self.signal(signal.SIGHUP if self.command.tty else signal.SIGTERM)
        if not await self.ended(HANGUP_GRACE_S):
            self.signal(signal.SIGKILL)

    def _cancel_hangup(self) -> None:
        if self._hangup is not None:
            self._hangup.cancel()
            self._hangup = None

    # What it looks like

    @property
    def title(self) -> str:
        """The command that runs now, which may not be the one that was started."""
        argv = self.command.process.argv
        if self.pid:
            with suppress(OSError), open(f"/proc/{self.pid}/cmdline", "rb") as file:
                words = file.read(SHOWN_COMMAND).decode(errors="replace").rstrip("\0").split("\0")
                argv = words if any(words) else argv
        return shlex.join(argv)[:SHOWN_COMMAND]

    @property
    def bytes_per_second(self) -> float:
        return round(self._rate.at(time.monotonic()), 1)

    def _touch(self, size: int) -> None:
        self.last_activity = time.time()
        self._rate.add(size, time.monotonic())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _within(seconds: float, work: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True


def spool_path(directory: Path, id: str) -> Path:
    return directory / id
