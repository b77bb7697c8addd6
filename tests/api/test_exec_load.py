"""A hundred exec sockets at once for a minute, some of which vanish: no exit frame is lost, nothing is left
running, memory stays flat.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import websockets

import holdings
import serving

SECONDS = 60
STEADY = 80
BRUTAL = 20
SIZES = [0, 1, 1000, 65_536, 300_000, 2_000_000]
GROWTH = 24 << 20  # bytes by which the second half of the minute may have more than the first


class Load:
    """The clients, and what they have seen."""

    def __init__(self, server: serving.Server, sprite: Any) -> None:
        self._base = f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/exec"
        self._headers = {"Authorization": f"Bearer {server.token}"}
        self._together = asyncio.Barrier(STEADY + BRUTAL + 1)
        self.end = 0.0
        self.commands = 0
        self.vanished = 0

    def connect(self, script: str, **parameters: str) -> Any:
        query = urlencode([("cmd", "sh"), ("cmd", "-c"), ("cmd", script), *parameters.items()])
        return websockets.connect(
            f"{self._base}?{query}", additional_headers=self._headers, max_size=None, open_timeout=60
        )

    async def all_are_here(self) -> None:
        """Wait until every client has its first socket open."""
        await self._together.wait()

    async def steady(self, number: int, *, waits: bool = True) -> None:
        """One command after another; each has to give back what it was given, all its output and its exit code."""
        dice = random.Random(number)
        first = True
        while first or time.monotonic() < self.end:
            size, code, given = dice.choice(SIZES), dice.randrange(256), dice.choice(SIZES[:5])
            script = f"wc -c; head -c {size} /dev/zero; exit {code}"
            async with self.connect(script, stdin="true") as socket:
                if first and waits:
                    await self.all_are_here()
                first = False
                for start in range(0, given, 32_768):
                    await socket.send(b"\0" + bytes(min(32_768, given - start)))
                await socket.send(b"\4")
                out, last = bytearray(), b""
                async for message in socket:
                    if isinstance(message, bytes):
                        assert last[:1] != b"\3", "nothing comes after an exit frame"
                        out += message[1:] if message[0] == 1 else b""
                        last = message
            count, _, zeros = out.partition(b"\n")
            assert (int(count), len(zeros), last) == (given, size, bytes((3, code)))
            self.commands += 1

    async def brutal(self, number: int) -> None:
        """Commands that never end, left without a word."""
        dice = random.Random(number)
        first = True
        while first or time.monotonic() < self.end:
            async with self.connect("cat /dev/zero & wait", max_run_after_disconnect="100ms") as socket:
                if first:
                    await self.all_are_here()
                first = False
                await asyncio.sleep(dice.random())
                socket.transport.abort()
                self.vanished += 1


@pytest.mark.slow
async def test_a_hundred_sockets(server: serving.Server, sprite: Any) -> None:
    load = Load(server, sprite)
    memory: list[int] = []

    async def watch() -> None:
        while True:
            memory.append(_resident(pids))
            await asyncio.sleep(0.5)

    async with asyncio.timeout(SECONDS * 4), asyncio.TaskGroup() as clients:
        for _ in range(3):  # so that what is needed is there
            async with asyncio.TaskGroup() as first:
                for number in range(10):
                    first.create_task(load.steady(number, waits=False))
        assert server._process is not None
        pids = [server._process.pid, serving.pilot(server, sprite.name)]
        holdings.wait_for_spares(server)
        before = _resident(pids), _processes(server), _files(server)
        for number in range(STEADY):
            clients.create_task(load.steady(number))
        for number in range(BRUTAL):
            clients.create_task(load.brutal(number))
        while len(await asyncio.to_thread(_sessions, server, sprite)) < STEADY + BRUTAL:
            await asyncio.sleep(0.2)
        load.end = time.monotonic() + SECONDS
        await load.all_are_here()
        watching = asyncio.create_task(watch())
        await asyncio.sleep(SECONDS)
        watching.cancel()
    assert load.commands > 2 * STEADY and load.vanished > 2 * BRUTAL

    half = len(memory) // 2
    assert max(memory[half:]) - max(memory[:half]) < GROWTH, memory
    serving.until(lambda: not _sessions(server, sprite), 60)
    serving.until(lambda: serving.run(sprite, "pgrep -c '^(cat|head|wc)$' || true") == "0", 60)
    serving.until(lambda: not _processes(server) - before[1], 60)
    serving.until(lambda: _files(server) <= before[2] + 4, 60)
    assert _resident(pids) - before[0] < 2 * GROWTH, (before, memory)


def _sessions(server: serving.Server, sprite: Any) -> list[str]:
    with server.http() as http:
        return [each["id"] for each in http.get(f"/v1/sprites/{sprite.name}/exec").json()["sessions"]]


def _processes(server: serving.Server) -> Counter[str]:
    """Names of the processes that belong to the server, its sprites and their pilots."""
    names: Counter[str] = Counter()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if server.instance in (entry / "cgroup").read_text() + (entry / "cmdline").read_text():
                    names[(entry / "comm").read_text().strip()] += 1
    return names


def _files(server: serving.Server) -> int:
    assert server._process is not None
    return len(list(Path(f"/proc/{server._process.pid}/fd").iterdir()))


def _resident(pids: list[int]) -> int:
    """Bytes of memory that belong to these processes alone."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            total += int(line.split()[1]) << 10 if line.startswith("RssAnon") else 0
    return total
