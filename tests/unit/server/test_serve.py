"""Running a server as a process: where it listens, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from spriggan.errors import Conflict, InvalidRequest, InvalidValue
from spriggan.server.serve import listen_address, listen_tcp, listen_unix
from spriggan.server.version import sprite_version

from .conftest import UPGRADE, head
from .double import TOKEN

PROGRAM = """
import asyncio, sys
from pathlib import Path
from spriggan.errors import SprigganError
from spriggan.server.serve import run
from tests.unit.server.double import MemoryEngine

async def main():
    directory = Path(sys.argv[1])
    engine = MemoryEngine(directory / "pilot.sock")

    async def prepare():
        assert engine.started
        print("prepared", flush=True)

    try:
        port, unix_socket = int(sys.argv[2]), directory / "api.sock"
        await run(engine, host="127.0.0.1", port=port, unix_socket=unix_socket, prepare=prepare)
    finally:
        print(f"started={engine.started} closed={engine.closed}", flush=True)

try:
    asyncio.run(main())
except SprigganError as error:
    sys.exit(f"{error.message} ({error.hint})")
"""


@contextmanager
def process(directory: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).parents[3]
    started = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(directory), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def ready(started: subprocess.Popen[str]) -> str:
    """The lines up to the one that says where the server is; returns its URL."""
    assert started.stdout is not None
    assert started.stdout.readline() == "finished creating 'left-over'\n"
    assert started.stdout.readline() == "prepared\n"
    line = started.stdout.readline()
    assert line.startswith("spriggan is ready on http://127.0.0.1:"), line
    return line.split()[4]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_engine_is_closed(short_path: Path, number: signal.Signals) -> None:
    with process(short_path) as started:
        url = ready(started)
        assert httpx.get(f"{url}/openapi.json", trust_env=False).status_code == 200
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
        assert (started.returncode, out, err) == (0, "started=True closed=True\n", "")
        assert not (short_path / "api.sock").exists()


def test_a_taken_port_is_said_before_the_engine_starts(short_path: Path) -> None:
    with listen_tcp("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with process(short_path, port) as started:
            out, err = started.communicate(timeout=60)
            assert started.returncode == 1
            assert out == "started=False closed=False\n"
            assert f"127.0.0.1:{port} is taken" in err and "--listen" in err


def test_a_stale_socket_does_not_matter(short_path: Path) -> None:
    with listen_unix(short_path / "api.sock"):
        pass
    assert (short_path / "api.sock").exists()
    with process(short_path) as started:
        ready(started)
        transport = httpx.HTTPTransport(uds=str(short_path / "api.sock"))
        with httpx.Client(transport=transport) as local:
            assert local.get("http://local/v1/sprites").status_code == 200


def test_shutdown_closes_sessions(short_path: Path) -> None:
    with process(short_path) as started:
        url = ready(started)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        httpx.post(f"{url}/v1/sprites", headers=headers, json={"name": "dev"}, trust_env=False)
        # A pilot that accepts and stays silent.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(short_path / "pilot.sock"))
            listener.listen()
            port = int(url.rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(head("GET", "/v1/sprites/dev/exec", *UPGRADE))
                pilot, _ = listener.accept()
                with pilot:
                    assert pilot.recv(65536).startswith(b"GET /exec HTTP/1.1\r\n")
                    pilot.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\n"
                        b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi"
                    )
                    received = b""
                    while not received.endswith(b"\r\n\r\nhi"):
                        received += client.recv(65536)
                    started.send_signal(signal.SIGTERM)
                    assert client.recv(65536) == b""
                    assert pilot.recv(65536) == b""
                    _, err = started.communicate(timeout=60)
                    assert (started.returncode, err) == (0, ""), "uvicorn says when its patience is over"


def test_a_request_under_way_is_told(short_path: Path) -> None:
    with process(short_path) as started, socket.socket(socket.AF_UNIX) as listener:
        url = ready(started)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        httpx.post(f"{url}/v1/sprites", headers=headers, json={"name": "dev"}, trust_env=False)
        listener.bind(str(short_path / "pilot.sock"))
        listener.listen()
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(head("POST", "/v1/sprites/dev/exec"))
            pilot, _ = listener.accept()
            with pilot:
                pilot.recv(65536)
                started.send_signal(signal.SIGTERM)
                received = b""
                while data := client.recv(65536):
                    received += data
        assert received.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"unavailable"' in received
        _, err = started.communicate(timeout=60)
        assert "Traceback" not in err


def test_listen_address() -> None:
    assert listen_address("127.0.0.1:7878") == ("127.0.0.1", 7878)
    assert listen_address("[::1]:80") == ("::1", 80)
    assert listen_address(":0") == ("127.0.0.1", 0)
    assert listen_address("0.0.0.0:1") == ("0.0.0.0", 1)
    for wrong in ("", "7878", "host", "host:", "host:x", "h:-1", "h:65536", "h:²"):
        with pytest.raises(InvalidRequest):
            listen_address(wrong)


def test_listening_where_one_cannot(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot listen"):
        listen_tcp("192.0.2.1", 0)
    with pytest.raises(InvalidValue, match="cannot listen"):
        listen_tcp("no such host", 0)
    with pytest.raises(InvalidValue, match="too long"):
        listen_unix(tmp_path / ("x" * 120) / "api.sock")
    with listen_tcp("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(Conflict):
            listen_tcp("127.0.0.1", bound.getsockname()[1])


def test_sprite_version() -> None:
    assert sprite_version("0.1.0") == "v0.1.0"
    assert sprite_version("1.2.3.dev4+g1") == "v1.2.3"
    assert sprite_version("unknown") == "v0.0.0"
