"""A hundred exec sockets at once, some of which vanish: no exit frame lost, nothing left, memory flat."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import websockets

import serving

SECONDS = 30
STEADY = 80
BRUTAL = 20
SIZES = [0, 1, 1000, 65_536, 300_000, 2_000_000]


@pytest.mark.slow
async def test_a_hundred_sockets(server: serving.Server, sprite: Any) -> None:
    base = f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/exec"
    headers = {"Authorization": f"Bearer {server.token}"}
    end = time.monotonic() + 2
    done = 0

    def connect(script: str, **parameters: str) -> Any:
        query = urlencode([("cmd", "sh"), ("cmd", "-c"), ("cmd", script), *parameters.items()])
        return websockets.connect(
            f"{base}?{query}", additional_headers=headers, max_size=None, open_timeout=60
        )

    async def steady(number: int) -> None:
        nonlocal done
        dice = random.Random(number)
        while time.monotonic() < end:
            size, code = dice.choice(SIZES), dice.randrange(256)
            seen, last = 0, b""
            async with connect(f"head -c {size} /dev/zero; exit {code}") as socket:
                async for message in socket:
                    if isinstance(message, bytes):
                        seen += len(message) - 1 if message[0] == 1 else 0
                        last = message
            assert (seen, last) == (size, bytes((3, code)))
            done += 1

    async def brutal(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < end:
            async with connect("cat /dev/zero & wait", max_run_after_disconnect="100ms") as socket:
                await asyncio.sleep(dice.random())
                socket.transport.abort()

    async with asyncio.timeout(SECONDS * 4):
        await asyncio.gather(*[steady(n) for n in range(10)])  # so that what is needed is there
        before = _resident(server, sprite)
        end = time.monotonic() + SECONDS
        await asyncio.gather(*[steady(n) for n in range(STEADY)], *[brutal(n) for n in range(BRUTAL)])
    assert done > STEADY
    deadline = time.monotonic() + 90
    with server.http() as http:
        while left := http.get(f"/v1/sprites/{sprite.name}/exec").json()["sessions"]:
            assert time.monotonic() < deadline, left
            await asyncio.sleep(0.5)
    while serving.run(sprite, "pgrep -c '^cat$' || true") != "0":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.5)
    after = _resident(server, sprite)
    assert after - before < 48 << 20, (before, after)


def _resident(server: serving.Server, sprite: Any) -> int:
    """Bytes of memory that belong to the server and the sprite's pilot alone."""
    assert server._process is not None
    pids = [server._process.pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = server.instance in (entry / "cgroup").read_text()
                if ours and (entry / "comm").read_text().strip() == f"pilot:{sprite.name}"[:15]:
                    pids.append(int(entry.name))
            except OSError:
                continue
    assert len(pids) == 2, pids
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            total += int(line.split()[1]) << 10 if line.startswith("RssAnon") else 0
    return total
