"""Waiting for a descriptor without blocking the event loop."""

from __future__ import annotations

import asyncio


async def readable(fd: int) -> None:
    """Return when ``fd`` can be read, or has come to its end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)
