"""One process of a service, from its start to its end.

Its output goes through two named pipes that the process itself holds open in both directions. So
a pilot that dies takes nothing away from it: it is not killed by writing, only waits when a pipe
is full, and the next pilot opens the pipes by their names and reads on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import process as processes
from spriggan.pilot import descriptors
from spriggan.pilot.process import Container, Process
from spriggan.pilot.services.log import Lines, ServiceLog

STREAMS = ("stdout", "stderr")
LEFT_OVER_GRACE_S = 2.0  # for children that outlive the service, between SIGTERM and SIGKILL
GIVE_UP_S = 10.0  # on those that do not even die of SIGKILL
POLL_S = 0.05
DRAIN_GRACE_S = 0.25  # for output, of which the rest may belong to those that left the session
DRAIN_LIMIT_S = 5.0


@dataclass(frozen=True)
class Record:
    """What the next pilot needs to find the process again."""

    pid: int  # the pilot's number of it
    session: int  # all that it starts and that does not leave on purpose
    started: int  # in clock ticks since boot: with the pid, a name for good
    started_at: float
    pipes: str  # path without the ending


class Run:
    """A process that was started for a service. Made by ``start`` or ``adopt``."""

    def __init__(self, record: Record, pidfd: int, outputs: dict[str, int], container: Container) -> None:
        self.record = record
        self._pidfd = pidfd
        self._outputs = outputs
        self._container = container
        self._gone = asyncio.Event()

    @classmethod
    async def start(cls, container: Container, process: Process, directory: Path) -> Run:
        """Run ``process``; its pipes are made in ``directory``. Raises ``ExecError`` or ``OSError``."""
        pipes = directory / secrets.token_hex(8)
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, pipes)
            outputs, theirs = {}, {}
            for stream in STREAMS:
                os.mkfifo(_pipe(pipes, stream), 0o600)
                outputs[stream] = _open(pipes, stream)
                stack.callback(os.close, outputs[stream])
                theirs[stream] = os.open(_pipe(pipes, stream), os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, theirs[stream])
                os.fchmod(theirs[stream], 0o666)  # /dev/stdout must open for all users inside
            nothing, end = os.pipe2(os.O_CLOEXEC)
            os.close(end)
            stack.callback(os.close, nothing)
            pid = await container.spawn(process, nothing, theirs["stdout"], theirs["stderr"])
            pidfd = processes.pidfd_open(pid)
            record = Record(pid, os.getsid(pid), processes.start_time(pid) or 0, time.time(), str(pipes))
            stack.pop_all()
        for fd in (nothing, *theirs.values()):
            os.close(fd)
        return cls(record, pidfd, outputs, container)

    @classmethod
    def adopt(cls, container: Container, record: Record) -> Run | None:
        """The process that an earlier pilot started; None if it has ended meanwhile."""
        try:
            pidfd = processes.pidfd_open(record.pid)
        except OSError:
            return None
        if not processes.is_running(record.pid) or processes.start_time(record.pid) != record.started:
            os.close(pidfd)
            return None
        outputs = {}
        for stream in STREAMS:
            with contextlib.suppress(FileNotFoundError):
                outputs[stream] = _open(Path(record.pipes), stream)
        return cls(record, pidfd, outputs, container)

    @property
    def pid(self) -> int:
        """The process's number as the sprite sees it."""
        return processes.inner_pid(self.record.pid)

    def signal(self, number: int) -> None:
        """Signal the process itself. Raises ``ProcessLookupError`` if it has ended."""
        signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self, log: ServiceLog) -> int | None:
        """Move output to ``log`` until the process and what it left are gone.

        Returns the exit code, or None if only an earlier pilot could have learned it.
        """
        pumps = [asyncio.create_task(_pump(fd, stream, log)) for stream, fd in self._outputs.items()]
        try:
            await processes.ready(self._pidfd)
            self._gone.set()
            await self._end_session()
            code = _reap(self.record.pid)
            await _drain(pumps, log)
            return code
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._close()

    async def terminate(self, timeout: float) -> None:
        """Ask the process and its session to end, and kill them after ``timeout`` seconds.

        Somebody must be in ``wait``, which notices the end.
        """
        await self._signal_all(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._gone.wait()
                return
        await self._signal_all(signal.SIGKILL)

    async def _end_session(self) -> None:
        """End what the process left in its session. As it is not reaped yet, nobody else has its number."""
        began = time.monotonic()
        number: int = signal.SIGTERM
        while await self._signal_all(number) and time.monotonic() < began + GIVE_UP_S:
            number = signal.SIGKILL if time.monotonic() >= began + LEFT_OVER_GRACE_S else 0
            await asyncio.sleep(POLL_S)

    async def _signal_all(self, number: int) -> int:
        like = self._container.init_pid
        return await asyncio.to_thread(processes.signal_session, self.record.session, number, like=like)

    def _close(self) -> None:
        for fd in (self._pidfd, *self._outputs.values()):
            os.close(fd)
        _remove(Path(self.record.pipes))


def _pipe(pipes: Path, stream: str) -> Path:
    return pipes.with_suffix(f".{stream}")


def _open(pipes: Path, stream: str) -> int:
    return os.open(_pipe(pipes, stream), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _remove(pipes: Path) -> None:
    for stream in STREAMS:
        _pipe(pipes, stream).unlink(missing_ok=True)


def _reap(pid: int) -> int | None:
    try:
        return processes.exit_code(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


async def _drain(pumps: list[asyncio.Task[None]], log: ServiceLog) -> None:
    """Wait for the end of output, as long as some comes."""
    deadline = time.monotonic() + DRAIN_LIMIT_S
    while pumps and time.monotonic() < deadline:
        before = log.end
        _, pending = await asyncio.wait(pumps, timeout=DRAIN_GRACE_S)
        if not pending or log.end == before:
            return


async def _pump(fd: int, stream: str, log: ServiceLog) -> None:
    lines = Lines()
    while data := await descriptors.read(fd):
        await log.write(stream, lines.feed(data))
    await log.write(stream, lines.end())
