"""Sessions: commands that run in the sprite, whoever is listening.

A session's output goes to its spool; those who are attached read it from there, each at its own
speed. The fastest of them is waited for, so that who is alone on a slow line loses nothing, and
who is slow stops nobody; those who fall behind by more than the spool holds are told what they missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import math
import os
import shlex
import signal
import struct
import termios
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

from spriggan.linux import process as processes
from spriggan.pilot import descriptors
from spriggan.pilot.inner import runtime, starters
from spriggan.pilot.input import Input
from spriggan.pilot.process import Container, Process
from spriggan.pilot.spool import LIMIT, Batch, Spool
from spriggan.wire.frames import Stream

log = logging.getLogger(__name__)

LEAD = LIMIT // 2  # how far the output may run ahead of the fastest reader
DRAIN_GRACE_S = 0.25  # for output that a background process still holds open after the end
DRAIN_LIMIT_S = 2.0  # and if it goes on putting out
SPOOL_RETRY_S = 1.0
START_PATIENCE_S = 5.0
KEPT_SECONDS = 3600.0  # how long an ended session can still be read
KEPT_SESSIONS = 64
KEPT_BYTES = 256 << 20  # of output of all ended sessions
REMEMBERED = 1000  # ended sessions of which nothing is kept but that they were
EXPIRY_CHECK_S = 60.0
TERMINATE_GRACE_S = 5.0
RATE_WINDOW_S = 10.0  # what lies longer back counts little for the rate of output
# What is known of a session that has ended, beside its command and its output.
_KEPT = (
    "id",
    "pid",
    "inner_pid",
    "tty",
    "linger",
    "rows",
    "cols",
    "created",
    "last_activity",
    "exit_code",
    "ended",
    "ended_at",
)


class Rate:
    """Bytes per second, an average that forgets."""

    def __init__(self) -> None:
        self._began = self._at = time.monotonic()
        self._level = 0.0

    def count(self, size: int) -> None:
        """``size`` bytes came now."""
        self._level = self._faded() + size

    def now(self) -> float:
        """The rate as it is now."""
        faded = self._faded()
        age = max(self._at - self._began, 0.001)
        # A short life is averaged over all of it, a long one over the window.
        return faded / RATE_WINDOW_S / (1 - math.exp(-age / RATE_WINDOW_S))

    def _faded(self) -> float:
        now = time.monotonic()
        self._level *= math.exp((self._at - now) / RATE_WINDOW_S)
        self._at = now
        return self._level


class Attachment:
    """Somebody who reads a session's output."""

    def __init__(self, session: Session, *, owner: bool) -> None:
        self._session = session
        self.owner = owner
        self.position = 0

    async def batches(self, idle: float) -> AsyncIterator[Batch | None]:
        """Yield output as it comes, and None after ``idle`` seconds without any; ends with the session."""
        session = self._session
        while True:
            changed = session.changed
            if self.position < session.spool.end:
                batch = session.spool.read(self.position)
                yield batch
                self.position = batch.end
                session.notify()
                continue
            if session.ended:
                return
            try:
                async with asyncio.timeout(idle):
                    await changed.wait()
            except TimeoutError:
                yield None


class Session:
    """One command. Made by ``Sessions.start``."""

    def __init__(self, process: Process, spool: Spool, *, tty: bool, linger: float | None) -> None:
        self.process = process
        self.spool = spool
        self.tty = tty
        self.linger = linger  # seconds to run on with nobody attached; None: for ever
        self.id = ""
        self.pid = 0
        self.inner_pid = 0  # as the sprite's own processes see it
        self.rows, self.cols = 24, 80
        self.created = time.time()
        self.last_activity = self.created
        self.exit_code: int | None = None
        self.ended = False  # the exit code is known and all output is in the spool
        self.ended_at = 0.0
        self.attachments: set[Attachment] = set()
        self.changed = asyncio.Event()
        self.input: Input | None = None
        self.terminal = -1
        self._rate = Rate()
        self._forgotten = False
        self._expiry: asyncio.TimerHandle | None = None

    def leave(self) -> dict[str, Any]:
        """What ``found`` has to know. Nobody needs the environment, which may hold secrets, any more."""
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "argv": self.process.argv, "cwd": self.process.cwd, "spool": self.spool.leave()}

    @classmethod
    def found(cls, left: dict[str, Any], directory: Path) -> Session:
        """One that ended under an earlier pilot. Raises ``OSError`` if its output is gone."""
        process = Process(left["argv"], {}, left["cwd"])
        session = cls(process, Spool.found(directory, left["spool"]), tty=left["tty"], linger=left["linger"])
        for name in _KEPT:
            setattr(session, name, left[name])
        return session

    @property
    def command(self) -> str:
        """The command line; that of what the process is now, if it became another program."""
        with contextlib.suppress(OSError):
            # In this order: a program that is begun does not become the runtime again.
            starting = runtime.is_starting(self.pid)
            current = Path(f"/proc/{self.pid}/cmdline").read_bytes().decode(errors="replace")
            line = current.rstrip("\0").split("\0")
            if current and not self.ended and not starting and not starters.is_starter(line):
                return shlex.join(line)
        return shlex.join(self.process.argv)

    @property
    def bytes_per_second(self) -> float:
        """Output of late."""
        return round(self._rate.now(), 1)

    def notify(self) -> None:
        """Wake everybody who waits for a change of this session."""
        self.changed.set()
        self.changed = asyncio.Event()

    def record(self, stream: int, payload: bytes) -> None:
        """Output of the command."""
        self.spool.append(stream, payload)
        self._rate.count(len(payload))
        self.last_activity = time.time()
        self.notify()

    @property
    def crowded(self) -> bool:
        """Whether even the fastest reader is far behind."""
        return bool(self.attachments) and self.spool.end - max(a.position for a in self.attachments) > LEAD

    async def room(self) -> None:
        """Wait until a reader is close enough behind."""
        while self.crowded:
            await self.changed.wait()

    @contextlib.contextmanager
    def attached(self, *, owner: bool = False) -> Iterator[Attachment]:
        """Be attached for as long as the block lasts."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        alone = not any(a.owner for a in self.attachments)
        attachment = Attachment(self, owner=owner or alone)
        self.attachments.add(attachment)
        try:
            yield attachment
        finally:
            self.attachments.discard(attachment)
            self.notify()
            if self._forgotten and not self.attachments:
                self.spool.close()
            if not self.attachments and not self.ended and self.linger is not None:
                loop = asyncio.get_running_loop()
                self._expiry = loop.call_later(self.linger, self._give_up)

    def forget(self) -> None:
        """Give back the output that was kept, once nobody reads it any more."""
        self._forgotten = True
        if not self.attachments:
            self.spool.close()

    async def write(self, data: bytes) -> None:
        """Give input to the command; ignored when it does not read any more."""
        self.last_activity = time.time()
        if self.input is not None:
            await self.input.write(data)

    def close_input(self) -> None:
        """The end of input. A terminal has none; its user types ^D."""
        if self.input is not None and not self.tty:
            self.input.end()

    def resize(self, rows: int, cols: int) -> None:
        """Change the terminal's size."""
        self.rows, self.cols = rows, cols
        if self.terminal >= 0:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def signal(self, number: int) -> bool:
        """Send a signal to the command's process group and a terminal's foreground job; False if it has ended."""
        if self.exit_code is not None:
            return False
        try:
            group = os.getpgid(self.pid)  # the runtime gives each command one of its own
            os.killpg(group, number)
        except ProcessLookupError:
            return False
        if self.terminal >= 0:
            with contextlib.suppress(OSError):
                foreground = os.tcgetpgrp(self.terminal)
                if foreground > 1 and foreground != group:
                    os.killpg(foreground, number)
        return True

    async def wait(self, timeout: float) -> bool:
        """Wait for the end; False if it did not come in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.ended:
                    await self.changed.wait()
        return self.ended

    def _give_up(self) -> None:
        """Nobody came back in time: hang up, as a terminal does."""
        self._expiry = None
        if not self.attachments and self.signal(signal.SIGHUP):
            loop = asyncio.get_running_loop()
            loop.call_later(TERMINATE_GRACE_S, lambda: self.signal(signal.SIGKILL))


class Sessions:
    """All sessions of the sprite."""

    def __init__(self, container: Container, directory: Path) -> None:
        self._container = container
        self._directory = directory
        self._sessions: dict[str, Session] = {}
        self._dropped: deque[str] = deque(maxlen=REMEMBERED)
        self._expiry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._counter = 0

    def begin(self, left: dict[str, Any] | None = None) -> None:
        """Take over what ``leave`` said; remove all other output, whose sessions are lost."""
        kept = set()
        if left is not None:
            self._counter = left["counter"]  # it names the spools
            self._dropped.extend(left["dropped"])
            for each in left["ended"]:
                try:
                    session = Session.found(each, self._directory)
                except OSError as error:
                    log.warning("the output of session %s is gone: %s", each["id"], error)
                    self._dropped.append(each["id"])
                    continue
                self._sessions[session.id] = session
                kept.add(each["spool"]["name"])
            self._forget_old()
        for path in self._directory.glob("*"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    async def can_start(self) -> None:
        """Wait until the sprite runs, if that is a matter of moments.

        If its first process has ended, this one follows, and whoever asked for a command can ask another pilot.
        """
        deadline = time.monotonic() + START_PATIENCE_S
        while not self._container.running and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

    def leave(self) -> dict[str, Any]:
        """What the next pilot needs to know of sessions; all of them have ended."""
        ended = [session.leave() for session in self._sessions.values()]
        return {"counter": self._counter, "dropped": list(self._dropped), "ended": ended}

    @property
    def busy(self) -> bool:
        """Whether a command runs, or something that it left is looked after."""
        return bool(self.running() or self._tasks)

    def running(self) -> list[Session]:
        """Sessions whose command has not ended, oldest first."""
        return [session for session in self._sessions.values() if not session.ended]

    def get(self, session_id: str) -> Session | None:
        """A running session, or one that ended lately."""
        return self._sessions.get(session_id)

    def was(self, session_id: str) -> bool:
        """Whether there was such a session, of which nothing is kept any more."""
        return session_id in self._dropped

    async def start(
        self, process: Process, *, tty: bool, rows: int, cols: int, linger: float | None
    ) -> Session:
        """Run a command. Raises ``ExecError`` if it cannot be started."""
        process = self._container.complete(process)
        self._counter += 1
        self._directory.mkdir(parents=True, exist_ok=True)
        spool = Spool(self._directory / f"{os.getpid()}-{self._counter}")
        session = Session(process, spool, tty=tty, linger=linger)
        session.rows, session.cols = rows, cols
        await asyncio.to_thread(spool.open)
        try:
            outputs = await (self._start_tty(session) if tty else self._start_pipes(session))
        except BaseException:
            spool.close()
            raise
        session.inner_pid = processes.inner_pid(session.pid)
        session.id = str(session.inner_pid)
        if (namesake := self._sessions.pop(session.id, None)) is not None:
            namesake.forget()  # an ended one whose pid came round again
        self._sessions[session.id] = session
        self._spawn(self._run(session, outputs))
        return session

    async def end_all(self) -> None:
        """Wait until every session has noticed that its command is gone."""
        for session in self.running():
            await session.wait(TERMINATE_GRACE_S)

    async def _start_tty(self, session: Session) -> list[tuple[int, int]]:
        session.pid, master = await self._container.spawn_tty(session.process, session.rows, session.cols)
        os.set_blocking(master, False)
        session.input, session.terminal = Input(os.dup(master)), master
        return [(master, int(Stream.STDOUT))]

    async def _start_pipes(self, session: Session) -> list[tuple[int, int]]:
        pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
        (stdin_r, stdin_w), (stdout_r, stdout_w), (stderr_r, stderr_w) = pipes
        for fd in (stdin_r, stdout_w, stderr_w):
            os.fchmod(fd, 0o666)  # they are the host root's, and /dev/stdout must open for all users inside
        try:
            session.pid = await self._container.spawn(session.process, stdin_r, stdout_w, stderr_w)
        except BaseException:
            for fd in (stdin_w, stdout_r, stderr_r):
                os.close(fd)
            raise
        finally:
            for fd in (stdin_r, stdout_w, stderr_w):
                os.close(fd)
        for fd in (stdin_w, stdout_r, stderr_r):
            os.set_blocking(fd, False)
        session.input = Input(stdin_w)
        return [(stdout_r, int(Stream.STDOUT)), (stderr_r, int(Stream.STDERR))]

    async def _run(self, session: Session, outputs: list[tuple[int, int]]) -> None:
        """Move output to the spool until the command has ended and its output is drained."""
        pumps = [asyncio.create_task(_pump(session, fd, stream)) for fd, stream in outputs]
        try:
            session.exit_code = await processes.wait(session.pid)
            await _drain(session, pumps)
        finally:
            held = [not pump.done() for pump in pumps]
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            if session.input is not None:
                session.input.close()
            session.terminal = -1
            for (fd, _), still_held in zip(outputs, held, strict=True):
                if still_held and not session.tty:
                    self._spawn(descriptors.discard(fd))
                else:
                    os.close(fd)  # of a terminal: hangs up what the command left behind
            session.ended, session.ended_at = True, time.monotonic()
            session.notify()
            self._forget_old()

    def _forget_old(self) -> None:
        """Drop ended sessions that are too old, and the oldest of too many or too large ones."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now, size, oldest = time.monotonic(), 0, 0.0
        ended = [session for session in self._sessions.values() if session.ended]
        for number, session in enumerate(sorted(ended, key=lambda session: -session.ended_at)):
            size += session.spool.size
            surplus = number >= KEPT_SESSIONS or size > KEPT_BYTES or now - session.ended_at >= KEPT_SECONDS
            if surplus and not session.attachments:
                session.forget()
                del self._sessions[session.id]
                self._dropped.append(session.id)
            else:
                oldest = session.ended_at
        if oldest:
            wait = max(oldest + KEPT_SECONDS - now, EXPIRY_CHECK_S)
            self._expiry = asyncio.get_running_loop().call_later(wait, self._forget_old)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _pump(session: Session, fd: int, stream: int) -> None:
    while True:
        await session.room()
        data = await descriptors.read(fd)
        if not data:
            return
        while True:
            try:
                session.record(stream, data)
                break
            except OSError as error:  # the host's disk is full: the command waits
                log.warning("the output of session %s cannot be kept: %s", session.id, error)
                await asyncio.sleep(SPOOL_RETRY_S)


async def _drain(session: Session, pumps: list[asyncio.Task[None]]) -> None:
    """Wait for the end of output; not for ever, as a background process may hold a pipe open.

    What the command itself wrote is in the pipe when it ends, and a pipe holds little: it is read
    long before the limit, which is for those that go on for ever. Slow readers do not count.
    """
    spent = 0.0
    while spent < DRAIN_LIMIT_S:
        before = session.spool.end
        _, pending = await asyncio.wait(pumps, timeout=DRAIN_GRACE_S)
        if session.crowded:
            continue
        spent += DRAIN_GRACE_S
        if not pending or session.spool.end == before:
            return
