"""Non-blocking reads and writes of pipes and terminals in the event loop."""

from __future__ import annotations

import errno
import os

from spriggan.linux import process

READ_BYTES = 60 * 1024


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


async def write(fd: int, data: bytes) -> None:
    """Write all of ``data``. Raises ``OSError`` (EPIPE, EIO) if nobody can read it any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await process.ready(fd, writing=True)
