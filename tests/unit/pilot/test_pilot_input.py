"""A command's input while the command does not read it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from spriggan.pilot import input as inputs
from spriggan.pilot.input import Input

MIB = 1 << 20


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, Input]]:
    monkeypatch.setattr(inputs, "SLOW_AFTER_S", 0.1)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    given = Input(writer)
    yield reader, given
    os.close(reader)


async def hand_over(given: Input, pieces: list[bytes]) -> None:
    for piece in pieces:
        await given.write(piece)
    given.end()


async def taken(size: int) -> None:
    """Wait until so much is taken, and for what must not come after it."""
    async with asyncio.timeout(30):
        while Input._together < size:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)


async def test_a_client_is_heard_while_its_input_waits(pipe: tuple[int, Input]) -> None:
    reader, given = pipe
    pieces = [bytes([n % 251]) * 4096 for n in range(256)]
    async with asyncio.timeout(30):
        await hand_over(given, pieces)
        got = b""
        while data := await asyncio.to_thread(os.read, reader, MIB):
            got += data
    assert got == b"".join(pieces)


async def test_no_more_is_taken_than_fits(pipe: tuple[int, Input]) -> None:
    reader, given = pipe
    before = Input._together
    handing = asyncio.create_task(hand_over(given, [bytes(MIB)] * 40))
    await taken(before + inputs.SLOW_WAITING)
    assert Input._together - before <= inputs.SLOW_WAITING + MIB and not handing.done()
    size = 0
    async with asyncio.timeout(30):
        while data := await asyncio.to_thread(os.read, reader, MIB):
            size += len(data)
        await handing
    assert size == 40 * MIB and Input._together == before


async def test_no_more_is_taken_than_fits_together(
    pipe: tuple[int, Input], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, given = pipe
    monkeypatch.setattr(inputs, "SLOW_TOGETHER", 3 * MIB)
    other, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    beside, before = Input(writer), Input._together
    handing = [asyncio.create_task(hand_over(each, [bytes(MIB)] * 5)) for each in (given, beside)]
    await taken(before + 3 * MIB)
    assert Input._together - before <= 5 * MIB
    for each in (given, beside):
        each.close()
    async with asyncio.timeout(30):
        await asyncio.gather(*handing)
    assert Input._together == before
    os.close(other)
