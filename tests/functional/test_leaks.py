"""Nothing leaks: after 200 lives of sprites there is what was there before.

Mounts (the host's and the zygote's), loop devices, network namespaces, cgroups, processes, nft rules,
open files of the server and of the zygote, bytes in the pool, memory.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import holdings
import serving

CYCLES = 200
WARM_UP = 40  # lives until caches, thread pools and the allocator are as large as they get
GROWTH = 1.25  # of memory, over five times as many lives as the warm-up had
POOL_GROWTH = 64 << 20  # the pool's own records; one sprite that was kept would be more


@pytest.mark.slow
def test_nothing_leaks() -> None:
    with serving.server() as server:
        server.start("--idle", "0.3")
        for number in range(WARM_UP):
            live(server, number)
        before, memory, used = everything(server), memories(server), pool_bytes(server)
        for number in range(WARM_UP, WARM_UP + CYCLES):
            live(server, number)
        settle(server, before)
        for role, size in memories(server).items():
            assert size < GROWTH * memory[role], f"{role}: from {memory[role]} to {size} bytes"
        assert pool_bytes(server) - used < POOL_GROWTH


def live(server: serving.Server, number: int) -> None:
    """One life: created, used, destroyed; and now and then all else that can happen to a sprite."""
    sprite = server.client().create_sprite(f"life{number}")
    assert serving.run(sprite, "echo data > file && cat file") == "data"
    if number % 4 == 0:
        serving.finished(sprite.create_checkpoint("one"))
        with server.http() as http:
            http.post(f"/v1/sprites/life{number}/fork", json={"name": f"fork{number}"}).raise_for_status()
        fork = server.client().sprite(f"fork{number}")
        assert serving.run(fork, "cat file") == "data"
        fork.delete()
    if number % 10 == 1:
        sleep_and_wake(server, sprite)
    if number % 10 == 2:
        assert sprite.command("cat", "file", tty=True).combined_output().strip() == b"data"
        (sprite.filesystem("/home/sprite") / "other").write_text("more")
        assert (sprite.filesystem("/home/sprite") / "other").read_text() == "more"
    if number % 10 == 3:
        serving.finished(sprite.create_checkpoint("one"))
        serving.finished(sprite.restore_checkpoint("v1"))
        assert serving.run(sprite, "cat file") == "data"
    if number % 10 == 4:
        with server.http() as http:
            http.post(f"/v1/sprites/life{number}/stop").raise_for_status()
        assert serving.run(sprite, "cat file") == "data"
    if number % 10 == 5:  # a session that goes on until its sprite is destroyed
        with server.http() as http, http.stream("POST", f"/v1/sprites/life{number}/exec?cmd=sleep&cmd=1000"):
            pass
    sprite.delete()


def sleep_and_wake(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        deadline = time.monotonic() + 60
        while http.get(f"/v1/sprites/{sprite.name}").json()["status"] != "warm":
            assert time.monotonic() < deadline, "the sprite does not fall asleep"
            time.sleep(0.05)
    assert serving.run(sprite, "cat file") == "data"


def everything(server: serving.Server) -> holdings.Held:
    """What is held, and what the server's processes have open."""
    zygote = zygote_of(server)
    return holdings.held(server) | {
        "mounts of the zygote": Path(f"/proc/{zygote}/mountinfo").read_text().splitlines(),
        "files of the server": open_files(server.pid),
        "files of the zygote": open_files(zygote),
        "children of the server": [str(holdings.comm(pid)) for pid in children(server.pid)],
        "threads of the server": ["thread" for _ in Path(f"/proc/{server.pid}/task").iterdir()],
    }


def settle(server: serving.Server, before: holdings.Held) -> None:
    """Require that no more is there than before, once what goes on in the background is done."""
    deadline = time.monotonic() + 30
    while (more := holdings.more(before, everything(server))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not more, more


def zygote_of(server: serving.Server) -> int:
    [zygote] = [pid for pid in children(server.pid) if holdings.is_zygote(server, pid)]
    return zygote


def children(pid: int) -> list[int]:
    """Also those that have ended and that nobody has waited for."""
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [each for each in found if holdings.parent(each) == pid]


def open_files(pid: int) -> list[str]:
    """What the process has open, without the numbers of sockets and pipes."""
    names = Counter[str]()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names[re.sub(r"\d+", "#", str(entry.readlink()))] += 1
        except OSError:
            continue
    return list(names.elements())


def memories(server: serving.Server) -> dict[str, int]:
    """Bytes that the server and the zygote have for themselves."""
    return {"the server": own_memory(server.pid), "the zygote": own_memory(zygote_of(server))}


def own_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return (sizes["Private_Dirty"] + sizes["Swap"]) * 1024


def pool_bytes(server: serving.Server) -> int:
    """What the pool takes of the host when everything that can be given back was."""
    done = server.cli("pool", "trim")
    assert done.returncode == 0, done.stderr
    return (server.data / "pool.img").stat().st_blocks * 512
