"""Patience with a child that does a file operation: it may take long, but not hang.

One that works for long runs now and then, and goes to sleep anew: for the next piece of a file, the next
name of a directory. One that hangs sleeps in a single system call, for as long as the program that serves
a file system of the user's (FUSE) wants it to. Only making things safe on a slow disk is as one long sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from spriggan.linux import process

WORKING, SYNCING = "pilot:files", "pilot:sync"  # what a child is called meanwhile
LOOK_S = 10.0
HANGS_S = {WORKING: 20.0, SYNCING: 300.0}

T = TypeVar("T")


async def patiently(child: int, wait: Callable[[], Awaitable[T]]) -> T:
    """Return what comes of ``wait``, which can be given up and begun again.

    ``child`` is a descriptor of the process that it comes from. Raises ``TimeoutError`` if that hangs.
    """
    sleep: process.Sleep | None = None
    since = 0.0
    while True:
        try:
            async with asyncio.timeout(LOOK_S) as look:
                return await wait()
        except TimeoutError:
            if not look.expired():
                raise
            before, sleep, now = sleep, process.asleep(process.pid_of(child)), time.monotonic()
            if sleep is None or sleep != before:
                since = now
            elif now - since >= HANGS_S.get(sleep.name, HANGS_S[WORKING]):
                raise


@contextlib.contextmanager
def syncing() -> Iterator[None]:
    """In the child: be given the time that a slow disk takes."""
    process.set_name(SYNCING)
    try:
        yield
    finally:
        process.set_name(WORKING)
