"""Run a short command inside the sprite and take its output."""

from __future__ import annotations

import asyncio
import os

from spriggan.linux import process as processes
from spriggan.pilot import descriptors
from spriggan.pilot.process import Container, Process

_reaping: set[asyncio.Task[int]] = set()


async def capture(container: Container, process: Process, *, timeout: float, limit: int = 64 << 10) -> bytes:
    """The standard output of ``process``, at most ``limit`` bytes of it; then, or after ``timeout``, it is killed.

    Raises ``ExecError`` if it cannot be started, ``TimeoutError`` if it takes too long.
    """
    (nothing, end), (ours, theirs) = (os.pipe2(os.O_CLOEXEC) for _ in range(2))
    os.close(end)
    os.set_blocking(ours, False)
    try:
        try:
            pid = await container.spawn(process, nothing, theirs, theirs)
        finally:
            for fd in (nothing, theirs):
                os.close(fd)
        try:
            async with asyncio.timeout(timeout):
                return await _read(ours, limit)
        finally:
            processes.kill_quietly(pid)  # a child of ours, so the number is its own until it is reaped
            task = asyncio.create_task(processes.wait(pid))
            _reaping.add(task)
            task.add_done_callback(_reaping.discard)
    finally:
        os.close(ours)


async def _read(fd: int, limit: int) -> bytes:
    output = bytearray()
    while len(output) < limit and (data := await descriptors.read(fd)):
        output += data
    return bytes(output[:limit])
