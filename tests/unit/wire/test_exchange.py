"""Asking over a unix socket: answers, and everything that is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from spriggan.wire.exchange import Exchange, ask

Answering = Callable[[bytes], Awaitable[Path]]


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[Answering]:
    """Makes a socket at which everybody gets the same bytes for whatever is asked, and then the end."""
    servers: list[asyncio.Server] = []
    asked = tmp_path / "asked"

    async def make(answer: bytes) -> Path:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"-length:" in line.lower()
            )
            asked.write_bytes(head + await reader.readexactly(length))
            writer.write(answer)
            writer.close()

        path = tmp_path / "socket"
        servers.append(await asyncio.start_unix_server(serve, path))
        return path

    yield make
    for server in servers:
        server.close()


async def test_what_is_asked_and_what_comes(answering: Answering, tmp_path: Path) -> None:
    socket = await answering(b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nbusy")
    found = await ask(socket, "PUT", "/a?b=c", b"body", headers=[("X-Given", "yes")], limit=4)
    assert found == (409, b"busy")
    head, _, body = (tmp_path / "asked").read_bytes().partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /a?b=c HTTP/1.1\r\n") and b"\r\nX-Given: yes" in head and body == b"body"


async def test_pieces_come_one_by_one(answering: Answering) -> None:
    chunks = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    socket = await answering(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    )
    async with Exchange(socket) as exchange:
        assert (await exchange.send("GET", "/")).status_code == 200
        assert [piece async for piece in exchange.body()] == [b"one", b"two"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345",  # more than may be
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\nwords",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_what_is_no_answer(answering: Answering, answer: bytes) -> None:
    socket = await answering(answer)
    with pytest.raises(OSError):
        await ask(socket, "GET", "/", limit=4)


async def test_nobody_is_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await ask(tmp_path / "none", "GET", "/", limit=1)
