"""Whoever takes all there is takes only what is their own: a neighbour and the host go on."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import create, holding, running, wait_for, works

import serving


@pytest.fixture(scope="module")
def neighbour(server: serving.Server) -> Iterator[Any]:
    made = server.client().create_sprite("neighbour")
    yield made
    made.delete()


@pytest.fixture(scope="module")
def hog(server: serving.Server) -> Iterator[Any]:
    made = create(server, "hog", ram_mb=256)
    yield made
    made.delete()


# What the kernel counts for each user.


PER_USER = {
    "inotify instances": """
taken = 0
while libc.inotify_init1(0) >= 0:
    taken += 1
full(taken)
""",
    "message queues": """
class Attributes(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_long), ("most", ctypes.c_long), ("size", ctypes.c_long), ("now", ctypes.c_long * 5)]
wanted, taken = Attributes(0, 10, 8192), 0
while libc.mq_open(b"/q%d" % taken, os.O_RDWR | os.O_CREAT, 0o600, ctypes.byref(wanted)) >= 0:
    taken += 1
full(taken)
for number in range(taken):
    libc.mq_unlink(b"/q%d" % number)
""",
    "pending signals": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
taken = 0
while libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), None) == 0:
    taken += 1
full(taken)
""",
}


@pytest.mark.parametrize("what", PER_USER)
def test_what_is_counted_for_each_user(server: serving.Server, hog: Any, neighbour: Any, what: str) -> None:
    with holding(server, hog.name, PER_USER[what]) as taken:
        assert int(taken) > 0
        works(server, neighbour)
        fd = ctypes.CDLL(None).inotify_init1(0)
        assert fd >= 0, "the host's root has none left"
        os.close(fd)


# What the kernel counts for the whole host.


PER_HOST = {
    "terminals": """
taken = 0
try:
    while taken < 5000:
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        taken += 1
except OSError:
    pass
full(taken)
""",
    "asynchronous reads and writes": """
taken = 0
while taken < 1 << 17 and libc.syscall(ctypes.c_long(206), 4096, ctypes.byref(ctypes.c_ulong(0))) >= 0:
    taken += 4096
full(taken)
""",
}


@pytest.mark.parametrize("what", PER_HOST)
def test_what_is_counted_for_the_host(server: serving.Server, hog: Any, neighbour: Any, what: str) -> None:
    with holding(server, hog.name, PER_HOST[what]) as taken:
        assert int(taken) > 3000
        works(server, neighbour)


def test_no_sprite_reaches_the_ceilings_of_the_host(neighbour: Any) -> None:
    """Of what would take gigabytes to use up in a test. The limits are those of the default sprite."""
    files, processes, threads = (
        int(Path(f"/proc/sys/{name}").read_text())
        for name in ("fs/file-max", "kernel/pid_max", "kernel/threads-max")
    )
    assert files > 1 << 40  # 250 bytes each, charged to the sprite
    assert processes > 100 * 4096 and threads > 100 * 4096


# Memory, in every shape that the kernel knows. The hog may have 256 MiB.


MEMORY = {
    "pages": """
memory = []
while True:
    memory.append(bytearray(b"x") * (16 << 20))
""",
    "page tables": """
import mmap
MAP_NORESERVE = 0x4000  # which Python has a name for since 3.13
kept = []
while True:
    part = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    kept.append(part)
    for place in range(0, 1 << 30, 2 << 20):
        part[place]
""",
    "shared memory": """
with open("/dev/shm/hog", "wb") as file:
    while True:
        file.write(bytes(16 << 20))
""",
    "a file system in memory": """
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100%", "hog", "/mnt"], check=True)
with open("/mnt/hog", "wb") as file:
    while True:
        file.write(bytes(16 << 20))
""",
    "System V shared memory": """
while True:
    place = libc.shmget(0, 64 << 20, 0o1600)
    libc.shmat.restype = ctypes.c_void_p
    ctypes.memset(libc.shmat(place, None, 0), 1, 64 << 20)
""",
    "message queues": """
while (queue := libc.msgget(0, 0o1600)) >= 0:
    message = struct.pack("l", 1) + bytes(8000)
    while libc.msgsnd(queue, message, 8000, 0o4000) == 0:
        pass
full()
""",
    "pipes": """
import fcntl
try:
    while True:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, 1031, 1 << 20)
        os.write(writer, bytes(1 << 20))
except OSError:
    full()
""",
    "unix sockets": """
kept = []
while True:
    here, there = socket.socketpair()
    kept.append((here, there))
    here.setblocking(False)
    try:
        while True:
            here.send(bytes(60000))
    except BlockingIOError:
        pass
""",
    "files opened": """
for _ in range(80):
    if os.fork() == 0:
        try:
            while True:
                os.open("/dev/null", os.O_RDONLY)
        except OSError:
            time.sleep(1000)
full()
""",
    "network namespaces": """
kept = []
while libc.unshare(0x40000000) == 0:
    kept.append(os.open("/proc/self/ns/net", os.O_RDONLY))
full()
""",
}


@pytest.mark.parametrize("shape", MEMORY)
def test_memory(server: serving.Server, hog: Any, neighbour: Any, shape: str) -> None:
    """It is killed inside its own limit, or gets no more; afterwards it can be used again."""
    with running(server, hog.name, MEMORY[shape]) as attack:
        works(server, neighbour)
        wait_for(lambda: attack.ended or attack.full is not None)
        works(server, neighbour)
    assert attack.killed or attack.full is not None, attack.words
    with server.http() as http:
        assert http.post(f"/v1/sprites/{hog.name}/stop").status_code == 200
    works(server, hog)


SOCKETS = {
    "TCP": """
server, kept, taken = socket.create_server(("127.0.0.1", 0)), [], 0
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
server.settimeout(0.2)
failures, end = 0, time.monotonic() + 8
while failures < 5 and taken < 1 << 30 and time.monotonic() < end:
    here, before = socket.socket(), taken
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)
    here.settimeout(0.05)
    try:
        here.connect(server.getsockname())
        kept += [here, server.accept()[0]]
        while True:
            taken += here.send(bytes(1 << 20))
    except OSError:
        failures = failures + 1 if taken < before + (1 << 16) else 0
full(taken)
""",
    "UDP": """
kept, taken = [], 0
for _ in range(6000):
    there, here = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    kept += [there, here]
    there.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
    there.bind(("127.0.0.1", 0))
    here.setblocking(False)
    try:
        for _ in range(8):
            taken += here.sendto(bytes(60000), there.getsockname())
    except OSError:
        pass
full(taken)
""",
}


@pytest.mark.parametrize("kind", SOCKETS)
def test_buffers_of_sockets(server: serving.Server, hog: Any, neighbour: Any, kind: str) -> None:
    """They are the sprite's own memory, too, although a host's total of them is limited for all at once."""
    before = buffered(kind)
    with running(server, hog.name, SOCKETS[kind]) as attack:
        most = 0
        while not attack.ended and attack.full is None:
            most = max(most, buffered(kind))
            time.sleep(0.05)
        works(server, neighbour)
        most = max(most, buffered(kind))
    assert attack.killed or attack.full is not None, attack.words
    assert most - before < 256 << 20


def buffered(kind: str) -> int:
    """The bytes in buffers of all sockets of this host."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        name, *words = line.split()
        if name == f"{kind}:":
            return int(words[words.index("mem") + 1]) * resource.getpagesize()
    raise AssertionError(f"no {kind} in /proc/net/sockstat")


# What the sprite makes its pilot do.


def test_the_sprites_own_socket(server: serving.Server, hog: Any, neighbour: Any) -> None:
    """Requests that never end, from somebody without any rights inside."""
    flood = """
kept = []
for _ in range(3000):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(0.5)
    try:
        client.connect("/.sprite/api.sock")
        client.sendall(b"GET /" + b"a" * (900 << 10))
    except OSError:
        pass
    kept.append(client)
    if len(kept) % 500 == 0:
        print(len(kept), flush=True)
full()
"""
    pilot = serving.pilot(server, hog.name)
    with holding(server, hog.name, flood, user="sprite"):
        assert resident(pilot) < 128 << 20
        works(server, neighbour)
    works(server, hog)
    assert serving.pilot(server, hog.name) == pilot


def resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


def test_when_the_host_has_no_memory_left_sprites_go_first(hog: Any) -> None:
    assert serving.run(hog, "cat /proc/self/oom_score_adj /proc/1/oom_score_adj").split() == ["500", "500"]
