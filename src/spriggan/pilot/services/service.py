"""One service: its state, and the task that keeps its process running."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from spriggan.pilot.process import ExecError
from spriggan.pilot.services.definition import Definition
from spriggan.pilot.services.log import ServiceLog
from spriggan.pilot.services.run import Run
from spriggan.pilot.together import until_one_ends

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
STABLE_S = 60.0  # what ran so long starts over with the first delay
LISTENING_PATIENCE_S = 30.0  # for a service with an HTTP port to listen on it


class Status(StrEnum):
    """As clients see it. ``FAILED``: it ended by itself and is started again at ``next_restart_at``."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FAILED = "failed"


class Service:
    """A service of a sprite that runs."""

    def __init__(
        self,
        definition: Definition,
        log: ServiceLog,
        *,
        launch: Callable[[Definition], Awaitable[Run]],
        ready: Callable[[Definition], Coroutine[None, None, None]],
        listener: Callable[[int], Awaitable[None]],
        changed: Callable[[], None],
    ) -> None:
        """``launch`` starts a process, ``ready`` waits for what it needs, ``listener`` waits until somebody
        listens on a port, ``changed`` is called when a process was started or has ended.
        """
        self.definition = definition
        self.log = log
        self._launch = launch
        self._ready = ready
        self._listener = listener
        self._changed = changed
        self.status = Status.STOPPED
        self.run: Run | None = None
        self.restart_count = 0
        self._error: str | None = None
        self._next_restart: float | None = None  # in seconds since the epoch
        self._changing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._hurry = asyncio.Event()  # wait no longer before the next process
        self._tried = asyncio.Event()  # since the last start, a process was started or could not be
        self._moved = asyncio.Event()

    @property
    def active(self) -> bool:
        """Whether it runs or will be started again."""
        return self._task is not None and not self._task.done()

    def state(self) -> dict[str, Any]:
        """What clients are told. A process that has ended is never named."""
        state: dict[str, Any] = {
            "name": self.definition.name,
            "status": self.status.value,
            "restart_count": self.restart_count,
        }
        if self.run is not None:
            state |= {"pid": self.run.pid, "started_at": _timestamp(self.run.record.started_at)}
        if self._error is not None:
            state["error"] = self._error
        if self._next_restart is not None:
            state["next_restart_at"] = _timestamp(self._next_restart)
        return state

    async def start(self) -> None:
        """Have it running; returns when a process was started or could not be. Fine if it runs."""
        async with self._changing:
            if not self.active:
                self._begin(None)
            elif self.status is Status.FAILED:
                self._tried.clear()
                self._hurry.set()
        await self._tried.wait()

    def adopt(self, run: Run, restart_count: int) -> None:
        """Take over a process that an earlier pilot started."""
        self._begin(run)
        self.restart_count = restart_count

    async def stop(self, timeout: float) -> None:
        """End it: SIGTERM, and SIGKILL after ``timeout`` seconds. Fine if it is stopped."""
        async with self._changing:
            if self._task is None or self._task.done():
                return
            self._stopping = True
            self._move(Status.STOPPING)
            self.log.note("stopping")
            self._hurry.set()
            if self.run is not None:
                await self.run.terminate(timeout)
            await asyncio.wait([self._task])
            self.log.note("stopped")

    def signal(self, number: int) -> bool:
        """Signal the process; False if there is none."""
        if self.run is None:
            return False
        try:
            self.run.signal(number)
        except ProcessLookupError:
            return False
        return True

    async def up(self) -> None:
        """Wait until it runs, or is not meant to."""
        while self.active and self.status is not Status.RUNNING:
            await self.moved()

    async def moved(self) -> None:
        """Wait for the next change of ``status``."""
        await self._moved.wait()

    async def forget(self) -> None:
        """Stop looking after it; the process is left alone."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin(self, run: Run | None) -> None:
        self.restart_count = 0
        self._stopping = False
        self._hurry.clear()
        self._tried.clear()
        self._move(Status.STARTING)
        self._task = asyncio.create_task(self._keep_running(run))

    async def _keep_running(self, run: Run | None) -> None:
        delay = FIRST_DELAY_S
        try:
            while True:
                began = time.monotonic()
                code = await (self._watch(run) if run else self._live())
                run = None
                if self._stopping:
                    return
                delay = FIRST_DELAY_S if time.monotonic() - began >= STABLE_S else delay
                self._error = "it ended" if code is None else f"it ended with exit code {code}"
                await self._pause(delay)
                if self._stopping:
                    return
                delay = min(delay * 2, LONGEST_DELAY_S)
                self.restart_count += 1
        finally:
            self._error = None
            self._tried.set()
            self._move(Status.STOPPED)

    async def _live(self) -> int | None:
        """One life, from its start to its end; the exit code, as far as it is known."""
        self._move(Status.STARTING)
        await self._unless_hurried(self._ready(self.definition))
        if self._stopping:
            return None
        try:
            run = await self._launch(self.definition)
        except (ExecError, OSError) as error:
            code = error.exit_code if isinstance(error, ExecError) else 126
            self.log.note("started")
            await self.log.write("stderr", [str(error).encode(errors="replace")])
            self.log.note("exit", exit_code=code)
            self._tried.set()
            return code
        self._error = None
        self.log.note("started")
        return await self._watch(run)

    async def _watch(self, run: Run) -> int | None:
        self.run = run
        self._changed()
        self._tried.set()
        # Told to stop while it was being started, it has not heard of it yet.
        beside = asyncio.create_task(run.terminate(0) if self._stopping else self._await_listener())
        try:
            code = await run.wait(self.log)
        finally:
            beside.cancel()
            self.run = None
            self._changed()
        self.log.note("exit", **({} if code is None else {"exit_code": code}))
        return code

    async def _await_listener(self) -> None:
        """Become ``RUNNING``; with an HTTP port, when somebody listens there."""
        port = self.definition.http_port
        if port is not None:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(LISTENING_PATIENCE_S):
                    await self._listener(port)
        if not self._stopping:
            self._move(Status.RUNNING)

    async def _pause(self, delay: float) -> None:
        """Wait before a restart."""
        self._hurry.clear()
        self._next_restart = time.time() + delay
        self._move(Status.FAILED)
        await self._unless_hurried(asyncio.sleep(delay))
        self._next_restart = None

    async def _unless_hurried(self, work: Coroutine[None, None, None]) -> None:
        """Wait for ``work``, or give it up when there is to be no more waiting."""
        await until_one_ends(work, self._hurried())

    async def _hurried(self) -> None:
        await self._hurry.wait()

    def _move(self, status: Status) -> None:
        self.status = status
        self._moved.set()
        self._moved = asyncio.Event()


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
