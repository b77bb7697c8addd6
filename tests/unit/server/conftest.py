"""A running server: real uvicorn, real sockets, an engine in memory and a small pilot."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import httpx
import pytest
import uvicorn

from spriggan.server.logins import Logins
from spriggan.server.serve import listen_tcp, listen_unix, serve
from spriggan.server.urls import Urls

from .double import TOKEN, MemoryEngine
from .pilot import Pilot

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def head(method: str, path: str, *headers: str, host: str = "Host: h") -> bytes:
    """The bytes of a request's head, with a token."""
    lines = [f"{method} {path} HTTP/1.1", host, f"Authorization: Bearer {TOKEN}", *headers]
    return "\r\n".join([*filter(None, lines), "", ""]).encode()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for ``condition``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@dataclass
class Running:
    """A server and what is behind it."""

    engine: MemoryEngine
    pilot: Pilot
    port: int
    unix_socket: Path
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.settimeout(30)
        return connection


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Socket paths have at most 107 bytes."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests: starting and ending one takes longer than most of them."""
    directory = tmp_path_factory.mktemp("server")
    started: Queue[Running] = Queue()
    stop = asyncio.Event()

    async def main() -> None:
        engine, pilot = MemoryEngine(directory / "pilot.sock"), Pilot()
        config = uvicorn.Config(
            pilot.app, uds=str(engine.pilot_socket), log_config=None, lifespan="off", ws="websockets-sansio"
        )
        beside = uvicorn.Server(config)
        beside.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
        tcp, unix = listen_tcp("127.0.0.1", 0), listen_unix(directory / "api.sock")
        port = tcp.getsockname()[1]
        urls, logins = Urls.here(port), Logins(bytes(32))
        made = Running(engine, pilot, port, directory / "api.sock", asyncio.get_running_loop())
        tasks = [
            asyncio.create_task(beside.serve()),
            asyncio.create_task(
                serve(engine, [tcp, unix], urls=urls, logins=logins, announce=lambda _: started.put(made))
            ),
            asyncio.create_task(stop.wait()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    made = started.get(timeout=60)
    yield made
    made.loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def server(running: Running) -> Iterator[Running]:
    """The server, with nothing in it. In the end nothing may hold a sprite awake any more."""
    running.engine.reset()
    running.pilot.reset()
    yield running
    until(lambda: not any(running.engine.awake_now.values()))


@pytest.fixture
def listener(server: Running, short_path: Path) -> Iterator[socket.socket]:
    """In place of the pilot, a socket that a test answers itself."""
    server.engine.pilot_socket = short_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(server.engine.pilot_socket))
        made.listen()
        made.settimeout(30)
        yield made


@pytest.fixture
def client(server: Running) -> Iterator[httpx.Client]:
    """A client with a token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as made:
        yield made


@pytest.fixture
def sprite(client: httpx.Client) -> str:
    """A sprite's name."""
    assert client.post("/v1/sprites", json={"name": "dev"}).status_code == 201
    return "dev"
