"""Exec in one HTTP request: one chunk is one frame."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
from pilot_client import Pilot, query


async def post(pilot: Pilot, path: str, body: bytes = b"") -> list[bytes]:
    """The chunks of the response, as they are on the wire."""
    reader, writer = await asyncio.open_unix_connection(str(pilot.socket))
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        chunks = []
        while size := int(await reader.readline(), 16):
            chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
        return chunks
    finally:
        writer.close()


async def test_each_chunk_is_a_frame_and_the_last_has_two_bytes(pilot: Pilot) -> None:
    chunks = await post(pilot, query("sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 9"))
    assert chunks == [b"\x01out\n", b"\x02err\n", b"\x03\x09"]


async def test_the_body_is_the_input(pilot: Pilot) -> None:
    data = bytes(range(256)) * 4096
    chunks = await post(pilot, query("cat", stdin="true"), data)
    assert chunks[-1] == b"\x03\x00"
    assert {chunk[0] for chunk in chunks[:-1]} == {1}
    assert b"".join(chunk[1:] for chunk in chunks[:-1]) == data
    assert max(map(len, chunks)) <= 65536


async def test_a_command_that_cannot_be_started(pilot: Pilot) -> None:
    chunks = await post(pilot, query("no-such-program"))
    assert chunks[-1] == b"\x03\x7f"
    assert re.fullmatch(rb"\x02.*no-such-program.*\n", chunks[0])


def test_bad_parameters_are_refused(http: httpx.Client) -> None:
    answer = http.post(query("true", rows="x"))
    assert answer.status_code == 400
    assert set(answer.json()) == {"error", "code", "message", "hint"}


async def test_a_client_that_leaves_ends_the_command_in_time(pilot: Pilot, http: httpx.Client) -> None:
    path = query("sleep", "60", max_run_after_disconnect="100ms")
    reader, writer = await asyncio.open_unix_connection(str(pilot.socket))
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    assert http.get("/exec").json()["count"] == 1
    writer.close()
    deadline = time.monotonic() + 6
    while http.get("/exec").json()["count"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_a_terminal_is_refused(http: httpx.Client) -> None:
    assert http.post(query("true", tty="true")).status_code == 400
