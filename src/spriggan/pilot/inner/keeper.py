"""The keeper: a tiny process that holds a sprite's namespaces and sockets.

When a pilot dies, its mount namespace, its router namespace and its listening sockets would go
with it, and the container would lose its network. The keeper was started inside all of them; a
new pilot joins what the keeper holds and takes the sockets from it. It is ``sleep``, so it costs
a hundred kilobytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import process as processes

# Descriptors as the keeper has them.
SERVER_LISTENER, INNER_LISTENER, USER_NAMESPACE, INNER_NETWORK, HOST_NETWORK = range(3, 8)
HELD = (SERVER_LISTENER, INNER_LISTENER, USER_NAMESPACE, INNER_NETWORK, HOST_NETWORK)


@dataclass(frozen=True)
class Held:
    """The descriptors that a keeper holds for the pilot."""

    server_listener: int
    inner_listener: int
    user_namespace: int
    inner_network: int
    host_network: int

    def as_list(self) -> list[int]:
        return [
            self.server_listener,
            self.inner_listener,
            self.user_namespace,
            self.inner_network,
            self.host_network,
        ]


def start(run_dir: Path, held: Held) -> int:
    """Start the keeper in the caller's namespaces and record it; return its pid."""
    sleep = shutil.which("sleep")
    if sleep is None:
        raise OSError("there is no sleep program on this host")
    # The shell's only work is to put the descriptors where they are looked for.
    moves = " ".join(
        f"{wanted}<&{fd}" for wanted, fd in zip((13, 14, 15, 16, 17), held.as_list(), strict=True)
    )
    script = f"exec {moves} && exec " + " ".join(f"{fd}<&{fd + 10} {fd + 10}<&-" for fd in HELD)
    script += f" && exec {sleep} infinity"
    child = subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=held.as_list(),
        start_new_session=True,
        cwd="/",
    )
    child.returncode = 0  # it is meant to outlive this process
    started = processes.start_time(child.pid)
    (run_dir / "keeper").write_text(f"{child.pid} {started}\n")
    return child.pid


def find(run_dir: Path) -> int | None:
    """Return the pid of the sprite's living keeper."""
    try:
        pid, started = (run_dir / "keeper").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if processes.start_time(int(pid)) == int(started) else None


def borrow(keeper: int) -> Held:
    """Take duplicates of what the keeper holds."""
    return Held(*(processes.borrow_fd(keeper, fd) for fd in HELD))


def namespaces(keeper: int) -> tuple[int, int]:
    """Open the keeper's mount and network (router) namespaces."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    return os.open(f"/proc/{keeper}/ns/mnt", flags), os.open(f"/proc/{keeper}/ns/net", flags)
