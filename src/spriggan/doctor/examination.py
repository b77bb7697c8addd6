"""An examination: all checks, several at a time, each within its time, in a given order."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from spriggan.doctor.check import Check
from spriggan.doctor.finding import Finding, Status, failed
from spriggan.doctor.privileges import is_privileged
from spriggan.doctor.worker import Worker
from spriggan.linux.cgroup import Group, hierarchies

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Tell = Callable[["Result"], None]


@dataclass(frozen=True)
class Result:
    """What one check found, and how long it took."""

    check: Check
    finding: Finding
    seconds: float

    @property
    def stands_in_the_way(self) -> bool:
        """Whether no sprite can run here because of this, as far as is known."""
        return self.check.essential and self.finding.status not in (Status.WORKS, Status.LIMITED)


def examine(
    checks: Sequence[Check], data: Path, *, workers: int = 2, tell: Tell = lambda result: None
) -> list[Result]:
    """Run ``checks``; ``tell`` gets each result as soon as it and all before it are known.

    Nothing is left when this returns or raises: the workers' cells are gone, and the control groups
    of their tries are removed here. Raises ``KeyboardInterrupt`` for SIGINT, SIGTERM and SIGHUP.
    """
    with ExitStack() as stack:
        interrupted = stack.enter_context(_interrupts())
        cgroup = f"/spriggan-doctor-{os.getpid()}"
        if is_privileged():
            stack.callback(_remove, cgroup)
        known = {check.name: check for check in checks}
        pool = _Pool(lambda private: Worker(known, data, cgroup, private=private), workers, interrupted)
        stack.callback(pool.end)
        return _in_order(checks, pool, tell)


def _in_order(checks: Sequence[Check], pool: _Pool, tell: Tell) -> list[Result]:
    results: dict[str, Result] = {}
    told = 0
    for result in pool.run(checks):
        results[result.check.name] = result
        while told < len(checks) and checks[told].name in results:
            tell(results[checks[told].name])
            told += 1
    return [results[check.name] for check in checks]


class _Pool:
    """Some workers, each replaced when a check costs its life."""

    def __init__(self, make: Callable[[bool], Worker], size: int, interrupted: socket.socket) -> None:
        self._interrupted = interrupted
        self._make = make
        self._size = size
        self._workers: list[Worker] = []

    def run(self, checks: Sequence[Check]) -> Iterator[Result]:
        """Yield results as they come."""
        waiting = list(checks)
        while waiting or self._busy():
            while waiting and len(self._busy()) < self._size:
                check = waiting.pop(0)
                self._idle(check.private).begin(check)
            yield from self._next()

    def end(self) -> None:
        while self._workers:
            self._workers.pop().end()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.check is not None]

    def _idle(self, private: bool) -> Worker:
        for worker in self._workers:
            if worker.check is None and worker.private == private:
                return worker
        self._workers.append(self._make(private))
        return self._workers[-1]

    def _next(self) -> list[Result]:
        """Wait for workers that are done, or whose time is up."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._interrupted, selectors.EVENT_READ)
            for worker in self._busy():
                selector.register(worker.socket, selectors.EVENT_READ, worker)
            first = min(worker.deadline for worker in self._busy())
            done = {key.data for key, _ in selector.select(max(0.0, first - time.monotonic()))}
        if None in done:
            raise KeyboardInterrupt
        now = time.monotonic()
        ready = [worker for worker in self._busy() if worker in done or worker.deadline <= now]
        return [self._result(worker, answered=worker in done) for worker in ready]

    def _result(self, worker: Worker, *, answered: bool) -> Result:
        check, seconds = worker.check, time.monotonic() - worker.began
        assert check is not None  # noqa: S101  it is busy
        found = worker.finding() if answered else None
        if found is None:
            self._workers.remove(worker)
            worker.end()
            found = failed("its process died" if answered else f"it took more than {check.limit:.0f} s")
        return Result(check, found, seconds)


@contextmanager
def _interrupts() -> Iterator[socket.socket]:
    """Yield a socket that signals make readable, and let them do no more than that.

    An exception out of nowhere could be lost, or leave behind what was being made at that moment.
    """
    here, there = socket.socketpair()
    with here, there:
        if threading.current_thread() is not threading.main_thread():
            yield here  # signals are the main thread's
            return
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno())
        handlers = {number: signal.signal(number, lambda number, frame: None) for number in _SIGNALS}
        try:
            yield here
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


def _remove(cgroup: str) -> None:
    """Remove the control groups of the tries, with whatever a try that was cut off left in them."""
    with contextlib.suppress(OSError):  # no cgroup file system, which a check has reported
        group = Group(cgroup, hierarchies())
        if group.exists():
            group.kill()
            group.remove()
