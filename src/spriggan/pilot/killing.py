"""Ending a session on request: a signal, some patience, and SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator

from starlette.requests import Request

from spriggan.pilot.request import BadRequest, json_body
from spriggan.pilot.sessions import Session
from spriggan.wire import messages
from spriggan.wire.durations import parse_duration

KILL_TIMEOUT_S = 10.0
LONGEST_S = 3600.0

_tasks: set[asyncio.Task[None]] = set()  # the event loop keeps weak references only


async def parameters(request: Request) -> tuple[int, float]:
    """Signal and timeout, from the query as two clients send them or the JSON body as a third does.

    Raises ``BadRequest``.
    """
    name: object = request.query_params.get("signal")
    timeout: object = request.query_params.get("timeout")
    data = await json_body(request, 'send {"signal": "SIGTERM", "timeout": 10}')
    name, timeout = data.get("signal", name), data.get("timeout", timeout)
    number = messages.signal_number(name if name is not None else "SIGTERM")
    if number is None:
        raise BadRequest(f"{str(name)[:40]!r} is not a signal", "use a name such as SIGTERM or HUP")
    return number, _seconds(timeout)


async def kill(session: Session, number: int, timeout: float) -> AsyncIterator[bytes]:
    """Do it, and yield what happens, one JSON object a line.

    It is carried through also when nobody listens any more. With a ``timeout`` of 0 the signal is
    sent and nothing is waited for; then there is no exit code to tell, unless the session has one.
    """
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    task = asyncio.create_task(_kill(session, number, timeout, lines))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    while (line := await lines.get()) is not None:
        yield line


async def _kill(session: Session, number: int, timeout: float, lines: asyncio.Queue[bytes | None]) -> None:
    def say(kind: str, message: str, **fields: object) -> None:
        # The official Python client shows "data" of such a line, the others "message".
        line = {"type": kind, "message": message, "data": message, **fields}
        lines.put_nowait(json.dumps(line).encode() + b"\n")

    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    pid = session.inner_pid
    try:
        if not session.signal(number):
            say("error", "the session has ended", error="the session has ended")
            return
        say("signal", f"Sent {name} to process {pid}", signal=name, pid=pid)
        if timeout > 0:
            if await session.wait(timeout):
                say("exited", f"Process {pid} exited")
            else:
                say("timeout", f"Process {pid} still runs after {timeout:g} s")
                session.signal(signal.SIGKILL)
                await session.wait(KILL_TIMEOUT_S)
                say("killed", f"Process {pid} was killed")
        code = session.exit_code
        if code is None and timeout == 0:
            say("complete", "The signal is sent; its effect was not waited for")
            return
        code = -1 if code is None else code
        say("complete", f"Exit code {code}", exit_code=code)
    finally:
        lines.put_nowait(None)


def _seconds(value: object) -> float:
    if value is None:
        return KILL_TIMEOUT_S
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_S:
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            seconds = parse_duration(value if not value.isdigit() else f"{value}s")
            if 0 <= seconds <= LONGEST_S:
                return seconds
    raise BadRequest(f"timeout {str(value)[:40]!r} is not a duration up to an hour", "write timeout=10s")
