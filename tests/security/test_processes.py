"""No process outside can be touched: not the host's, not another sprite's, not the pilot or the runtime."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attacks import attack_json, create, running, wait_for, works

import serving

# Whoever cannot be asked what program it is, is not of this sprite: the runtime, on its way to become a
# command. Everything is tried on it, by a child, so that what is held is let go at once.
HUNT = """
import threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
def foreign(pid):
    try:
        os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        return True
    except OSError:
        pass
    return False
def opened(path, flags):
    os.close(os.open(path, flags))
    return True
def traced(pid):
    return libc.ptrace(ctypes.c_long(0x4206), ctypes.c_long(pid), None, None) == 0
def memory_read(pid):
    place = int(open(f"/proc/{pid}/maps").readline().partition("-")[0], 16)
    here = ctypes.create_string_buffer(8)
    vectors = [(ctypes.c_void_p * 2)(address, 8) for address in (ctypes.addressof(here), place)]
    return libc.process_vm_readv(ctypes.c_long(pid), vectors[0], 1, vectors[1], 1, 0) > 0
def taken(pid):
    pidfd = os.pidfd_open(pid)
    return any(libc.syscall(ctypes.c_long(438), pidfd, fd, 0) >= 0 for fd in range(32))
def joined(pid):
    pidfd = os.pidfd_open(pid)
    return any(libc.setns(pidfd, kind) == 0 for kind in (0x20000, 0x40000000, 0x10000000, 0x02000000))
tries = {
    "ptrace": traced,
    "read": memory_read,
    "descriptors": taken,
    "namespaces": joined,
    "mem": lambda pid: opened(f"/proc/{pid}/mem", os.O_RDWR),
    "root": lambda pid: bool(os.listdir(f"/proc/{pid}/root/")),
    "cwd": lambda pid: bool(os.listdir(f"/proc/{pid}/cwd/")),
    "exe": lambda pid: opened(f"/proc/{pid}/exe", os.O_RDONLY),
    "fd": lambda pid: bool(os.listdir(f"/proc/{pid}/fd")),
    "environ": lambda pid: bool(open(f"/proc/{pid}/environ", "rb").read()),
}
met, done = 0, set()
print("full", flush=True)
while not over.is_set():
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        for name, attempt in tries.items():
            if not foreign(pid):
                break
            met += 1
            child = os.fork()
            if child == 0:
                try:
                    # It may have become a command of the sprite's meanwhile, which may be touched.
                    os._exit(1 if attempt(pid) and foreign(pid) else 0)
                except BaseException:
                    os._exit(0)
            if os.waitpid(child, 0)[1]:
                done.add(name)
print(json.dumps([met, sorted(done)]), flush=True)
"""


def test_the_runtime_on_its_way_in(server: serving.Server, sprite: Any) -> None:
    """Starting a command, it is a process of the host that has joined the sprite's namespaces."""
    with running(server, sprite.name, HUNT) as hunter:
        wait_for(lambda: hunter.full is not None)
        with server.http() as http:
            for _ in range(60):
                assert http.post(f"/v1/sprites/{sprite.name}/exec", params={"cmd": "true"}).content == b"\3\0"
                http.get(f"/v1/sprites/{sprite.name}/fs/list", params={"path": "/tmp"})
    met, done = json.loads(hunter.words[-1])
    assert met > 0, "none was ever met"
    assert done == []


# The pilot listens on a socket inside, and so can be named by a descriptor.
PEER = """
import fcntl
peer = socket.socket(socket.AF_UNIX)
peer.connect("/.sprite/api.sock")
shown = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
try:
    pidfd = struct.unpack("i", peer.getsockopt(socket.SOL_SOCKET, 77, 4))[0]  # SO_PEERPIDFD
except OSError:
    pidfd = None
done = []
if pidfd is not None:
    if any(libc.syscall(ctypes.c_long(438), pidfd, fd, 0) >= 0 for fd in range(64)):
        done.append("pidfd_getfd")
    for number in (0, 19, 18):
        if libc.syscall(ctypes.c_long(424), pidfd, number, None, 0) == 0:
            done.append(f"signal {number}")
    for kind in (0x20000, 0x40000000, 0x10000000, 0x20000000, 0x02000000, 0x04000000, 0x08000000):
        if libc.setns(pidfd, kind) == 0:
            done.append(f"setns {kind:#x}")
    for request in range(0xFF01, 0xFF0B):  # PIDFD_GET_CGROUP_NAMESPACE and its like
        try:
            fcntl.ioctl(pidfd, request, 0)
            done.append(f"ioctl {request:#x}")
        except OSError:
            pass
print(json.dumps([shown[0], done]))
"""


def test_the_pilot_behind_its_socket(server: serving.Server, sprite: Any) -> None:
    shown, done = attack_json(sprite, PEER)
    assert shown == 0, "the pilot's number on the host shows"
    assert done == []
    works(server, sprite)


# By the numbers that they have on the host, and all at once.
BLIND = """
import signal
reached = []
for pid in map(int, sys.argv[1:]):
    for name, attempt in {
        "kill": lambda: os.kill(pid, 0),
        "pidfd": lambda: os.pidfd_open(pid),
        "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
        "affinity": lambda: os.sched_getaffinity(pid),
        "limits": lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE),
        "proc": lambda: os.stat(f"/proc/{pid}"),
    }.items():
        try:
            attempt()
            reached.append((pid, name))
        except OSError:
            pass
print(json.dumps(reached), flush=True)
for everybody in (lambda: os.setpriority(os.PRIO_USER, 0, 5), lambda: os.kill(-1, signal.SIGKILL)):
    try:
        everybody()
    except OSError:
        pass
"""


def test_processes_by_the_numbers_of_the_host(server: serving.Server, sprite: Any) -> None:
    """Also when a sprite kills all that it can see, which ends itself, everybody else goes on."""
    other = create(server, "has-a-number")
    try:
        serving.run(other, "(sleep 4243 >/dev/null 2>&1 &)")
        serving.run(sprite, "true")
        sleeper = next(int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if sleeps(path))
        pilots = [serving.pilot(server, each.name) for each in (sprite, other)]
        before = [os.getpriority(os.PRIO_PROCESS, pid) for pid in (pilots[1], sleeper)]
        with running(server, sprite.name, BLIND, *map(str, [sleeper, *pilots])) as blind:
            wait_for(lambda: blind.ended)
        assert json.loads(blind.words[0]) == []
        assert serving.pilot(server, other.name) == pilots[1]
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in (pilots[1], sleeper)] == before
        assert sleeps(Path(f"/proc/{sleeper}/cmdline"))
        works(server, other)
        assert sprite.run("true").returncode == 0, "it does not start anew"
        works(server, sprite)
    finally:
        other.delete()


def sleeps(path: Path) -> bool:
    try:
        return path.read_bytes() == b"sleep\x004243\x00"
    except OSError:
        return False
