"""Control groups: limits, freezer, and ending all processes of a group."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spriggan.doctor.check import Place
from spriggan.doctor.finding import Finding, missing
from spriggan.linux import process
from spriggan.linux.cgroup import CONTROLLERS, Group, Hierarchies, hierarchies

# What the groups of sprites get where there is such a controller (linux/cgroup.py).
_WANTED = {*CONTROLLERS, "io", "cpuset"}


def cgroups(place: Place) -> Finding | str:
    """A real group with limits, frozen and thawed, and killed with a process in it."""
    host = hierarchies()
    if lacking := _lacking(host):
        return missing(
            f"cgroup {host.kind} without {', '.join(lacking)}",
            costs="sprites can have no limits, and cannot be frozen when they are idle",
            fix="boot with systemd.unified_cgroup_hierarchy=1 cgroup_enable=memory on the kernel's command line",
        )
    disabled = _disabled(host)
    group = Group(place.cgroup, host)
    if disabled:
        # Enabling them for the whole machine is the server's business; a group works without, too.
        (_unified(host) / place.cgroup.strip("/")).mkdir(parents=True)
    else:
        group.create()
        group.limit(memory_bytes=64 << 20, cpus=1.0, pids=64)
    with _sleeping() as pid:
        group.add(pid)
        group.freeze()
        group.thaw()
        group.kill()
    group.remove()
    rest = f"; the server will enable {', '.join(disabled)} for the whole machine" if disabled else ""
    return f"{host.kind}, with {', '.join(CONTROLLERS)} and a freezer{rest}"


def _lacking(host: Hierarchies) -> list[str]:
    if host.v1:
        return [name for name in (*CONTROLLERS, "freezer") if name not in host.v1]
    available = (_unified(host) / "cgroup.controllers").read_text().split()
    return [name for name in CONTROLLERS if name not in available]


def _disabled(host: Hierarchies) -> list[str]:
    """Version 2's controllers that groups below the root do not have yet."""
    if host.v1:
        return []
    root = _unified(host)
    available = (root / "cgroup.controllers").read_text().split()
    enabled = (root / "cgroup.subtree_control").read_text().split()
    return [name for name in available if name in _WANTED and name not in enabled]


def _unified(host: Hierarchies) -> Path:
    if host.unified is None:
        raise OSError("no cgroup version 2 file system is mounted")
    return host.unified


@contextmanager
def _sleeping() -> Iterator[int]:
    """A process that does nothing, until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                signal.pause()
        finally:
            os._exit(0)
    try:
        yield pid
    finally:
        process.kill_quietly(pid)
        os.waitpid(pid, 0)
