"""Connections for a sprite's URL: made by the pilot, passed to the server, and nothing left of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pilot_client import Pilot

from spriggan.errors import SprigganError
from spriggan.server.errors import BadGateway
from spriggan.server.service import connected

# Listens after a while, and says its number to everybody.
SCRIPT = """
import os, socket, sys, time
time.sleep(float(sys.argv[2]))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    with listener.accept()[0] as connection:
        connection.sendall(str(os.getpid()).encode())
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture
def port(http: httpx.Client) -> Iterator[int]:
    """Where the service is to listen; what was made of it is gone afterwards."""
    yield free_port()
    http.delete("/services/web?timeout=1")


def put(http: httpx.Client, port: int | None, *, delay: float = 0, cmd: str = "python3") -> None:
    body: dict[str, Any] = {"cmd": cmd, "args": ["-c", SCRIPT, str(port), str(delay)], "http_port": port}
    assert http.put("/services/web?duration=0.01", json=body).status_code == 200


async def said(pilot: Pilot) -> bytes:
    async with connected(pilot.socket) as link:
        return await link.read()


async def refusal(pilot: Pilot) -> SprigganError:
    with pytest.raises(SprigganError) as caught:
        await said(pilot)
    return caught.value


async def test_a_service_that_is_being_started_is_waited_for(
    pilot: Pilot, http: httpx.Client, port: int
) -> None:
    put(http, port, delay=1)
    first, *others = await asyncio.gather(*(said(pilot) for _ in range(5)))
    assert first.isdigit() and set(others) == {first}


async def test_one_that_was_stopped_is_not_started(pilot: Pilot, http: httpx.Client, port: int) -> None:
    put(http, port)
    assert await said(pilot)
    assert http.post("/services/web/stop?timeout=1").status_code == 200
    error = await refusal(pilot)
    assert isinstance(error, BadGateway)
    assert error.message == "the service web is stopped"
    assert error.hint == "start it: sprite-env services start web"
    assert http.get("/services/web").json()["state"]["status"] == "stopped"
    assert http.post("/services/web/start?duration=0.01").status_code == 200
    assert await said(pilot)


async def test_one_that_fails_is_not_waited_for(pilot: Pilot, http: httpx.Client, port: int) -> None:
    put(http, port, cmd="false")
    async with asyncio.timeout(20):
        while "exit code 1" not in (error := await refusal(pilot)).message:
            await asyncio.sleep(0.05)
    assert "services logs web" in error.hint


async def test_one_that_runs_may_still_come_to_listen(pilot: Pilot, http: httpx.Client, port: int) -> None:
    http.put("/services/web?duration=0.01", json={"cmd": "sleep", "args": ["60"], "http_port": port})
    waiting = asyncio.create_task(said(pilot))
    await asyncio.sleep(1)
    assert not waiting.done()
    with socket.create_server(("127.0.0.1", port)) as listener:
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            connection.sendall(b"here")
        assert await waiting == b"here"


def sockets(pid: int) -> set[str]:
    """The sockets that a process has open."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return {name for name in found if name.startswith("socket:")}


async def test_nothing_is_left_of_connections(pilot: Pilot, http: httpx.Client, port: int) -> None:
    """Neither of those that were made, nor of those that nobody could take."""
    put(http, port)
    assert await said(pilot)
    kept = sockets(pilot.own_pid), sockets(os.getpid())
    for _ in range(30):
        await said(pilot)
    for number in range(30):
        leaving = asyncio.create_task(said(pilot))
        await asyncio.sleep(number / 5000)
        leaving.cancel()
    async with asyncio.timeout(20):
        while len(sockets(pilot.own_pid) - kept[0]) or sockets(os.getpid()) - kept[1]:
            await asyncio.sleep(0.05)
