"""The keeper: a tiny process that holds a sprite's namespaces and sockets.

When a pilot dies, its mount namespace, its router namespace and its listening sockets would go
with it, and the container would lose its network. The keeper was started inside all of them; a
new pilot joins what the keeper holds and takes the sockets from it. It is ``sleep``, so it costs
a hundred kilobytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

from spriggan import faults
from spriggan.linux import process as processes


@dataclass(frozen=True)
class Held:
    """The descriptors that a keeper holds for the pilot."""

    server_listener: int
    inner_listener: int
    user_namespace: int
    inner_network: int
    host_network: int


def start(run_dir: Path, held: Held) -> int:
    """Start the keeper in the caller's namespaces and record it; return its pid."""
    sleep = shutil.which("sleep")
    if sleep is None:
        raise OSError("there is no sleep program on this host")
    child = subprocess.Popen(
        [sleep, "infinity"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=astuple(held),
        start_new_session=True,
        cwd="/",
    )
    child.returncode = 0  # it is meant to outlive this process
    faults.point("keeper:started")
    record = {"pid": child.pid, "started": processes.start_time(child.pid), "held": asdict(held)}
    (run_dir / "keeper").write_text(json.dumps(record))
    return child.pid


@dataclass(frozen=True)
class Keeper:
    """A living keeper."""

    pid: int
    held: Held  # the descriptors as the keeper numbers them

    def borrow(self) -> Held:
        """Take duplicates of what it holds."""
        return Held(**{name: processes.borrow_fd(self.pid, fd) for name, fd in asdict(self.held).items()})

    def namespaces(self) -> tuple[int, int]:
        """Open its mount and network (router) namespaces."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        return os.open(f"/proc/{self.pid}/ns/mnt", flags), os.open(f"/proc/{self.pid}/ns/net", flags)


def find(run_dir: Path) -> Keeper | None:
    """The sprite's keeper, if it lives."""
    try:
        record = json.loads((run_dir / "keeper").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if processes.start_time(record["pid"]) != record["started"]:
        return None
    return Keeper(record["pid"], Held(**record["held"]))
