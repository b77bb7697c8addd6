"""The proxy's first message, and what becomes of connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pilot_client import Pilot

LENIENT = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

targets = st.fixed_dictionaries(
    {},
    optional={
        "host": st.text(max_size=20) | st.none() | st.integers() | st.just("[::1]") | st.just("fe80::1%lo"),
        "port": st.integers() | st.text(max_size=5) | st.booleans() | st.floats() | st.just(1),
        "half_close": st.booleans() | st.none(),
    },
)
firsts = targets.map(json.dumps) | st.text(max_size=60) | st.binary(max_size=30)


@LENIENT
@given(first=firsts)
def test_any_first_message_is_answered(pilot: Pilot, first: str | bytes) -> None:
    async def ask() -> dict[str, Any]:
        async with asyncio.timeout(20), pilot.connect("/proxy") as connection:
            await connection.send(first)
            answer: dict[str, Any] = json.loads(await connection.recv())
            return answer

    answer = asyncio.run(ask())
    assert answer["status"] == "failed" and answer["error"] and answer["hint"]


async def test_memory_stays_flat_under_slow_readers_and_brutal_ends(pilot: Pilot) -> None:
    """40 connections whose clients do not read, then vanish; nothing of them is left."""
    server = await asyncio.start_server(_flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    before = pilot.resident()
    async with contextlib.AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(pilot.connect("/proxy", max_queue=1)) for _ in range(40)
        ]
        for connection in connections:
            await connection.send(json.dumps({"port": port}))
        await asyncio.sleep(3)
        assert pilot.resident() - before < 60 << 20
        assert len(_connections(pilot, port)) == 40
        for connection in connections:
            connection.transport.abort()
    async with asyncio.timeout(30):
        while _connections(pilot, port):
            await asyncio.sleep(0.05)
    server.close()


async def test_ports_are_listed(pilot: Pilot) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with asyncio.timeout(20), pilot.connect("/ports/watch") as watch:
            listed = json.loads(await watch.recv())
            assert listed["type"] == "port_list"
            [found] = [each for each in listed["ports"] if each["port"] == port]
            assert found["address"] == "127.0.0.1" and found["type"] == "port_opened"
            await watch.send("whatever")
            await watch.send(b"\x00")
            listener.close()
            while True:
                message = json.loads(await watch.recv())
                if (message["type"], message["port"]) == ("port_closed", port):
                    return


async def _flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
    except OSError:
        writer.close()


def _connections(pilot: Pilot, port: int) -> list[str]:
    """Sockets that the pilot holds and that are connected to ``port``."""
    [init] = Path(f"/proc/{pilot.pid}/task/{pilot.pid}/children").read_text().split()
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = {f"socket:[{words[9]}]" for words in lines if words[2].endswith(f":{port:04X}")}
    return [link for fd in Path(f"/proc/{init}/fd").iterdir() if (link := _link(fd)) in wanted]


def _link(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except FileNotFoundError:
        return ""
