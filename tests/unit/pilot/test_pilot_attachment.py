"""Reading a session's output."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from spriggan.pilot.process import Process
from spriggan.pilot.sessions import Session
from spriggan.pilot.spool import Spool
from spriggan.wire.frames import Stream


@pytest.mark.parametrize("turns", range(8))
async def test_a_reader_that_is_cancelled_ends_also_when_output_comes(tmp_path: Path, turns: int) -> None:
    """Both in one turn of the event loop, or a few between them: whatever is lost there reads on for ever."""
    spool = Spool(tmp_path / "spool")
    spool.open()
    session = Session(Process(["yes"], {}, "/"), spool, tty=False, linger=None)
    with session.attached(owner=True) as attachment:

        async def read() -> None:
            async for _ in attachment.batches(60):
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.01)
        session.record(Stream.STDOUT, b"y\n")
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
        cancelled = reading.cancelled()
        session.ended = True  # so that it ends in any case
        session.notify()
        await asyncio.wait({reading})
    spool.close()
    assert cancelled
