"""Non-blocking reads of pipes and terminals in the event loop."""

from __future__ import annotations

import asyncio
import errno
import os

from spriggan.linux import process

READ_BYTES = 60 * 1024
DISCARD_PAUSE_S = 0.1


async def read(fd: int) -> bytes:
    """Read what is there, waiting for it; ``b""`` at the end (also of a terminal, which fails with EIO)."""
    while True:
        try:
            return os.read(fd, READ_BYTES)
        except BlockingIOError:
            await process.ready(fd)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise


async def discard(fd: int) -> None:
    """Read and drop what is left to come, and close ``fd`` at its end.

    What a command left running in the background would be killed by SIGPIPE otherwise. Slowly,
    as nobody wants the output.
    """
    try:
        while True:
            if not await read(fd):
                return
            await asyncio.sleep(DISCARD_PAUSE_S)
    finally:
        os.close(fd)
