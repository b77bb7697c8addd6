"""Whoever takes all the time, all the processes or all the disk harms only their own sprite.

Memory has tests of its own (``test_neighbours``), and so has a host whose disk is full (``test_full_host``).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from attacks import create, running, wait_for, works

import serving

GREED = {
    "processes": """
print("begins", flush=True)
while True:
    try:
        if os.fork() == 0:
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
    except OSError:
        pass
""",
    "threads that fork": """
import threading
def breed():
    while True:
        try:
            if os.fork() == 0:
                breed()
        except OSError:
            pass
print("begins", flush=True)
for _ in range(64):
    try:
        threading.Thread(target=breed).start()
    except RuntimeError:
        break
time.sleep(1000)
""",
    "time": """
favours = [lambda: os.setpriority(os.PRIO_PROCESS, 0, -20)]
for kind in (os.SCHED_FIFO, os.SCHED_RR):
    favours.append(lambda kind=kind: os.sched_setscheduler(0, kind, os.sched_param(99)))
for favour in favours:
    try:
        favour()
    except OSError:
        pass
for _ in range(64):
    if os.fork() == 0:
        while True:
            os.getpid()
print("begins", flush=True)
time.sleep(1000)
""",
    "the disk": """
block, begun = os.urandom(1 << 20), False
for number in range(1 << 30):
    try:
        with open(f"/home/sprite/fill{number}", "wb") as file:
            while True:
                file.write(block)
    except OSError:
        begun or print("begins", flush=True)
        begun = True
        time.sleep(0.01)
""",
    "names on the disk": """
begun = False
for number in range(1 << 30):
    try:
        if number % 1000 == 0:
            os.makedirs(f"/home/sprite/names/{number}")
        os.close(os.open(f"/home/sprite/names/{number - number % 1000}/{number}", os.O_CREAT | os.O_WRONLY))
    except OSError:
        begun or print("begins", flush=True)
        begun = True
        time.sleep(0.01)
""",
}


@pytest.fixture
def greedy(server: serving.Server) -> Iterator[Any]:
    made = create(server, "greedy", ram_mb=256, cpus=1, storage_gb=1)
    yield made
    made.delete()


@pytest.fixture(scope="module")
def neighbour(server: serving.Server) -> Iterator[Any]:
    made = server.client().create_sprite("works-on")
    yield made
    made.delete()


@pytest.mark.parametrize("what", GREED)
def test_a_neighbour_works_on(server: serving.Server, greedy: Any, neighbour: Any, what: str) -> None:
    """It answers commands, what it has acknowledged is there, and so does the server; then all is well again."""
    written = {}
    with running(server, greedy.name, GREED[what]) as attack, server.http() as http:
        wait_for(lambda: "begins" in attack.words or attack.ended)
        assert not attack.ended, attack.words
        for number in range(10):
            content = secrets.token_bytes(100_000)
            where = {"path": f"/home/sprite/{number}"}
            done = http.put(f"/v1/sprites/{neighbour.name}/fs/write", params=where, content=content)
            assert done.status_code == 200, done.text
            written[number] = hashlib.sha256(content).hexdigest()
            named = {each["name"] for each in http.get("/v1/sprites").json()["sprites"]}
            assert {greedy.name, neighbour.name} <= named
        works(server, neighbour)
        assert http.post(f"/v1/sprites/{greedy.name}/stop").status_code == 200
    sums = serving.run(neighbour, "sha256sum [0-9]*").splitlines()
    assert {int(line.split()[1]): line.split()[0] for line in sums} == written
    serving.run(greedy, "sudo rm -rf /home/sprite/fill* /home/sprite/names")
    works(server, greedy)
