"""Everything that a data directory's server and sprites hold in the kernel, the pool and its files.

Looked at from outside: /proc, /sys, the mount table, the pool's directories, the database. What is
named by a number that the kernel or the server chose is shown by what it is for, so that two looks
can be compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import serving
from serving import Server
from spriggan.linux import cgroup, loop

Held = dict[str, list[str]]


def held(server: Server) -> Held:
    """What there is now, by kind; with all its spares."""
    wait_for_spares(server)
    instance, data = server.instance, server.data
    pids = {pid for pid in processes(server) if not is_zygote(server, pid)}
    found = {
        "mounts": _mounts(data),
        "loop devices": _loop_devices(data),
        "cgroups": _cgroups(instance),
        "links": ["uplink" for _ in Path("/sys/class/net").glob(f"sg{instance[:4]}*")],
        "rules": _rules(instance),
        "processes": [comm(pid) for pid in pids],
        "network namespaces": _namespaces(pids, "net"),
        # A files helper lives in its zygote's, which it may have in common with others.
        "mount namespaces": _namespaces({pid for pid in pids if comm(pid) != "pilot:files"}, "mnt"),
        "runtime files": [path.name for path in Path(f"/run/spriggan/{instance}").iterdir()],
        "pool": pool(data),
        "files": [path.name for path in data.iterdir()],
        "spools": [path.name for path in (data / "spool").glob("*")],
        "intents": _intents(data),
    }
    return {kind: nameless(server, things) for kind, things in found.items()}


def nameless(server: Server, things: list[str]) -> list[str]:
    """``things`` with the same name for every spare: one is like the other, and does not stay for long."""
    for spare in spares(server):
        things = [thing.replace(spare, "spare") for thing in things]
    return things


def more(expected: Held, found: Held) -> dict[str, list[str]]:
    """By kind, what was found beyond what was expected."""
    each = {kind: list((Counter(found[kind]) - Counter(expected[kind])).elements()) for kind in expected}
    return {kind: things for kind, things in each.items() if things}


def require_no_more(server: Server, expected: Held, patience: float = 20.0) -> None:
    """Require that no more than ``expected`` is held; the kernel and the trash have a moment to settle."""
    deadline = time.monotonic() + patience
    while (found := more(expected, held(server))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not found, found


def spares(server: Server) -> list[str]:
    """Ids of the boxes that are ready for the next creates, and no sprite's yet."""
    found = []
    known = _sprites(server.data)
    for file in Path(f"/run/spriggan/{server.instance}").glob("*/spec.json"):
        with contextlib.suppress(OSError, ValueError):
            name, sprite_id = json.loads(file.read_text())["name"], file.parent.name
            if not name and sprite_id not in known and (file.parent / "pilot").exists():
                found.append(sprite_id)
    return found


def wait_for_spares(server: Server) -> None:
    """Until the server, if it runs, has as many as it is to have: it makes them when it is quiet."""
    serving.until(lambda: not server.alive or len(spares(server)) == server.spares, what="the spares")


def processes(server: Server) -> set[int]:
    """Pids of the server, its helpers, and everything that runs in the cgroups of its sprites."""
    marks = (f"spriggan-{server.instance}/", f"/run/spriggan/{server.instance}", str(server.data))
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            # A helper that is neither named for the server nor moved into a cgroup has its environment.
            words = [
                (entry / name).read_bytes().decode(errors="replace")
                for name in ("cgroup", "cmdline", "environ")
            ]
            if state(int(entry.name)) not in "ZX" and any(mark in text for mark in marks for text in words):
                found.add(int(entry.name))
    return found


def pool(data: Path) -> list[str]:
    """Disks, checkpoints, blanks and trash, as paths below the pool."""
    root = data / "pool"
    patterns = ("disks/*", "trash/*", "blanks/*", "checkpoints/*/*")
    return sorted(str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern))


def comm(pid: int) -> str:
    """The name of a process; empty if there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def state(pid: int) -> str:
    """The state of a process as ps shows it (``T`` is stopped); ``X`` if there is none."""
    with contextlib.suppress(OSError):
        return _stat(pid)[0]
    return "X"


def parent(pid: int) -> int:
    """The pid of a process's parent; 0 if there is none."""
    with contextlib.suppress(OSError):
        return int(_stat(pid)[1])
    return 0


def within(cgroup: str, pid: int) -> bool:
    """Whether a process is in a cgroup with that in its path."""
    with contextlib.suppress(OSError):
        return cgroup in Path(f"/proc/{pid}/cgroup").read_text()
    return False


def is_zygote(server: Server, pid: int) -> bool:
    """Whether this is the one that the server keeps. It starts one when it first needs it."""
    return comm(pid) == "spriggan-zygote" and parent(pid) == server.pid


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _mounts(data: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" ")[4] for line in lines if str(data) in line]


def _loop_devices(data: Path) -> list[str]:
    # Not everywhere: in ``images`` whole systems are mounted.
    files = [*data.glob("*.img"), *(data / "pool").rglob("*.img")]
    names = {loop.backing_id(path): str(path.relative_to(data)) for path in files}
    found = []
    for device in loop.attached():
        if device.backing in names:
            found.append(names[device.backing])
        else:
            with contextlib.suppress(OSError):  # of a file that was deleted, the kernel still shows the path
                shown = Path(f"/sys/block/{Path(device.path).name}/loop/backing_file").read_text()
                found += [shown.strip()] if str(data) in shown else []
    return found


def _cgroups(instance: str) -> list[str]:
    return [
        str(path)
        for root in cgroup.hierarchies().roots()
        for path in (root / f"spriggan-{instance}").rglob("*")
        if path.is_dir()
    ]


def _rules(instance: str) -> list[str]:
    command = ["nft", "list", "table", "inet", f"spriggan_{instance}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()


def _namespaces(pids: set[int], kind: str) -> list[str]:
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}/ns/{kind}").readlink())
    return ["namespace" for _ in found - {Path(f"/proc/self/ns/{kind}").readlink()}]


def _intents(data: Path) -> list[str]:
    return [f"{kind} of {name}" for kind, name in _rows(data, "select kind, sprite_name from intents")]


def _sprites(data: Path) -> set[str]:
    return {sprite_id for (sprite_id,) in _rows(data, "select id from sprites")}


def _rows(data: Path, query: str) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{data}/state.db?mode=ro", uri=True)) as database:
        return list(database.execute(query))
