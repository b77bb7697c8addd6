"""How the box takes what a pilot answers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from spriggan.box.container import ContainerBox
from spriggan.errors import Broken
from spriggan.linux import process

SPRITE = "sprite-1"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 x\r\nContent-Length: 21\r\n\r\nInternal Server Error", "answered 500"),
        (b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n[]", "answered 500"),
        (b'HTTP/1.1 500 x\r\nContent-Length: 22\r\n\r\n{"message": "no room"}', "no room"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n", "does not answer"),
        (b"", "does not answer"),
        (b"nonsense\r\n\r\n", "does not answer"),
    ],
)
async def test_every_failure_of_a_pilot_is_one_that_others_expect(
    tmp_path: Path, answer: bytes, words: str
) -> None:
    """Whoever restores a checkpoint puts the old disk back then, which it does not for a surprise."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    (tmp_path / SPRITE).mkdir()
    (tmp_path / SPRITE / "pilot").write_text(f"{os.getpid()} {process.start_time(os.getpid())}\n")
    box = ContainerBox("test1234", tmp_path)
    async with await asyncio.start_unix_server(serve, box.pilot_socket(SPRITE)):
        with pytest.raises(Broken, match=words):
            await box.start_inner(SPRITE)
