"""Control groups, the same calls on version 2, version 1 and hybrid hosts.

A group is named by one path that is used in every hierarchy. On a hybrid host the
limits live in the version 1 hierarchies and the unified one is used for membership
(and so for killing): a process placed there cannot leave by forking.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from spriggan.linux import process
from spriggan.linux.mount import unescape

CONTROLLERS = ("memory", "cpu", "pids")
CPU_PERIOD_US = 100_000
KILL_PATIENCE_S = 10.0
LOOK_AGAIN_S = 0.1
AWAITED = 256  # descriptors at most


@dataclass(frozen=True)
class Hierarchies:
    """Where this host's cgroup file systems are mounted."""

    unified: Path | None
    v1: dict[str, Path] = field(default_factory=dict)  # controller (or "name=…") -> mount point
    favors_moves: bool = False  # whether the unified one is mounted with favordynmods

    @property
    def kind(self) -> str:
        """``"v2"``, ``"v1"`` or ``"hybrid"``."""
        if self.v1:
            return "hybrid" if self.unified else "v1"
        return "v2"

    def roots(self) -> list[Path]:
        """Every hierarchy's root once."""
        return list(dict.fromkeys([*([self.unified] if self.unified else []), *self.v1.values()]))


def hierarchies() -> Hierarchies:
    """Read the mount table. Raises ``OSError`` if no cgroup file system is mounted."""
    unified: Path | None = None
    v1: dict[str, Path] = {}
    favors_moves = False
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.rstrip("\n").partition(" - ")
            fstype, _, superblock = after.split(" ", 2)
            target = Path(unescape(before.split(" ")[4]))
            if fstype == "cgroup2" and unified is None:
                unified, favors_moves = target, "favordynmods" in superblock.split(",")
            elif fstype == "cgroup":
                for option in superblock.split(","):
                    if option.startswith("name=") or (target.name and option in target.name.split(",")):
                        v1.setdefault(option, target)
    if unified is None and not v1:
        raise OSError("no cgroup file system is mounted")
    return Hierarchies(unified, v1, favors_moves)


class Group:
    """The cgroup at ``path`` (such as ``/spriggan-ab12/box``) in all hierarchies."""

    def __init__(self, path: str, host: Hierarchies) -> None:
        self.path = path
        self.host = host

    def child(self, name: str) -> Group:
        return Group(f"{self.path}/{name}", self.host)

    def create(self) -> None:
        """Make the group where it is missing; on version 2 let children use the controllers."""
        for root in self.host.roots():
            current = root
            for part in self.path.strip("/").split("/"):
                if self.host.kind == "v2":
                    _enable_controllers(current)
                current /= part
                current.mkdir(exist_ok=True)
                if self.host.v1.get("cpuset") == root:
                    _inherit_cpuset(current)

    def add(self, pid: int) -> None:
        """Move process ``pid`` here, in every hierarchy."""
        for directory in self._directories():
            (directory / "cgroup.procs").write_text(str(pid))

    def enter(self) -> None:
        """Move this process, which has one thread, here in every hierarchy.

        In version 1 a thread may move itself without the lock that ``add`` takes (cgroup_procs_write_start,
        kernel/cgroup/cgroup.c): that one waits for all forks on the host that have begun, whose processes may be
        behind thousands of others of their sprite.
        """
        for directory in self._directories():
            own = directory / "tasks"
            (own if own.exists() else directory / "cgroup.procs").write_text("0")

    def limit(self, *, memory_bytes: int, cpus: float, pids: int) -> None:
        """Set the limits; ``cpus`` 0 is no limit. Raises ``OSError`` if the kernel refuses."""
        if self.host.v1:
            self._write("memory", "memory.limit_in_bytes", str(memory_bytes))
            self._limit_sockets(memory_bytes // 4)
            quota = int(cpus * CPU_PERIOD_US) if cpus else -1
            self._write("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US))
            self._write("cpu", "cpu.cfs_quota_us", str(quota))
            self._write("pids", "pids.max", str(pids))
            return
        quota_v2 = f"{int(cpus * CPU_PERIOD_US)}" if cpus else "max"
        self._write("memory", "memory.max", str(memory_bytes))
        self._write("memory", "memory.oom.group", "0")
        self._write("cpu", "cpu.max", f"{quota_v2} {CPU_PERIOD_US}")
        self._write("pids", "pids.max", str(pids))

    def memory_in_use(self) -> int:
        """Bytes that could not be given back by dropping caches."""
        directory = self._in("memory")
        fields = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
        if self.host.v1:
            used = int((directory / "memory.usage_in_bytes").read_text())
            names = ("total_inactive_file", "total_active_file")
        else:
            used = int((directory / "memory.current").read_text())
            names = ("inactive_file", "active_file")
        return max(0, used - sum(int(fields.get(name, 0)) for name in names))

    def delegate(self, uid: int) -> None:
        """Give the group to ``uid``; the files that hold its own limits stay with root."""
        for directory in self._directories():
            os.chown(directory, uid, uid)
            for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"):
                if (directory / name).exists():
                    os.chown(directory / name, uid, uid)

    def freeze(self) -> None:
        """Stop every process of the group and below, and wait until they stand still."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def frozen(self) -> bool:
        if "freezer" in self.host.v1:
            file = self._in("freezer") / "freezer.state"
            return file.exists() and file.read_text().strip() != "THAWED"
        file = self._in("") / "cgroup.freeze"
        return file.exists() and file.read_text().strip() == "1"

    def exists(self) -> bool:
        return any(directory.exists() for directory in self._directories(existing=False))

    def pids(self) -> set[int]:
        """Processes in the group and below it, in any hierarchy."""
        found: set[int] = set()
        for directory in self._directories():
            for group in _subtree(directory):
                found |= _read_pids(group / "cgroup.procs")
        return found

    def kill(self) -> None:
        """SIGKILL everything in the group and below, and wait until it is gone.

        Raises ``TimeoutError`` naming the processes that would not die.
        """
        deadline = time.monotonic() + KILL_PATIENCE_S
        while pids := self.pids():
            if self.host.unified and (self._in("") / "cgroup.kill").exists():
                (self._in("") / "cgroup.kill").write_text("1")
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self._thaw_below()  # a process in a frozen version 1 group does not even die
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {sorted(pids)} in cgroup {self.path} survive SIGKILL")
            _wait_for(pids)

    def kill_own(self, *, spare: Collection[int]) -> None:
        """SIGKILL what is in this very group in every hierarchy, but ``spare``, and wait until it is gone.

        A process that was moved to another group in some hierarchies only is not one of them.
        """
        deadline = time.monotonic() + KILL_PATIENCE_S
        while pids := self._own_pids().difference(spare):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {sorted(pids)} in cgroup {self.path} survive SIGKILL")
            _wait_for(pids)

    def _own_pids(self) -> set[int]:
        each = [_read_pids(directory / "cgroup.procs") for directory in self._directories()]
        return set.intersection(*each) if each else set()

    def _thaw_below(self) -> None:
        if "freezer" in self.host.v1:
            for group in _subtree(self._in("freezer")):
                if (group / "freezer.state").exists():
                    (group / "freezer.state").write_text("THAWED")

    def remove(self) -> None:
        """Remove the group and everything below it; it must hold no process."""
        for directory in self._directories():
            for group in reversed(list(_subtree(directory))):
                _rmdir(group)

    def _limit_sockets(self, size: int) -> None:
        """Version 1 counts the buffers of sockets apart from all other memory, and only where they have a limit."""
        name = "memory.kmem.tcp.limit_in_bytes"
        if (self._in("memory") / name).exists():  # newer kernels have no such thing
            self._write("memory", name, str(size))

    def _write(self, controller: str, name: str, value: str) -> None:
        (self._in(controller) / name).write_text(value)

    def _in(self, controller: str) -> Path:
        root = self.host.v1.get(controller, self.host.unified)
        if root is None:
            raise OSError(f"no cgroup hierarchy with the {controller} controller is mounted")
        return root / self.path.strip("/")

    def _directories(self, *, existing: bool = True) -> list[Path]:
        found = [root / self.path.strip("/") for root in self.host.roots()]
        return [directory for directory in found if directory.exists()] if existing else found

    def _set_frozen(self, frozen: bool) -> None:
        if "freezer" in self.host.v1:
            # Version 1's freezer acts on each group of its own; a child of a frozen one is frozen too.
            (self._in("freezer") / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
            wanted, state = ("FROZEN" if frozen else "THAWED"), self._in("freezer") / "freezer.state"
            _until(lambda: state.read_text().strip() == wanted, f"{self.path} to be {wanted.lower()}")
            return
        group = self._in("")
        (group / "cgroup.freeze").write_text("1" if frozen else "0")
        line = f"frozen {int(frozen)}"
        _until(lambda: line in (group / "cgroup.events").read_text(), f"{self.path} to be {line}")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + KILL_PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {KILL_PATIENCE_S:.0f} s for cgroup {what}")
        time.sleep(0.0005)


def _wait_for(pids: Collection[int]) -> None:
    """Wait until ``pids`` have ended, but not for long: there may be others by then, or they do not end.

    To look through all groups again and again would take more time than the end itself.
    """
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        running: set[int] = set()
        for pid in islice(pids, AWAITED):
            with contextlib.suppress(OSError):  # it is gone; or it cannot be waited for, and is found again
                fd = process.pidfd_open(pid)
                stack.callback(os.close, fd)
                poll.register(fd, select.POLLIN)
                running.add(fd)
        deadline = time.monotonic() + LOOK_AGAIN_S
        while running and (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                poll.unregister(fd)
                running.remove(fd)
    time.sleep(0.001)  # the kernel may list them a moment longer


def _enable_controllers(group: Path) -> None:
    available = (group / "cgroup.controllers").read_text().split()
    enabled = (group / "cgroup.subtree_control").read_text().split()
    missing = [name for name in (*CONTROLLERS, "io", "cpuset") if name in available and name not in enabled]
    if missing:
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))


def _inherit_cpuset(group: Path) -> None:
    # A new version 1 cpuset is empty and refuses processes until it has CPUs and memory nodes.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (group / name).read_text().strip():
            (group / name).write_text((group.parent / name).read_text())


def _subtree(directory: Path) -> Iterator[Path]:
    """The directory and all groups below it, parents first."""
    yield directory
    try:
        children = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for child in children:
        yield from _subtree(Path(child))


def _read_pids(file: Path) -> set[int]:
    try:
        return {int(line) for line in file.read_text().split()}
    except OSError:  # gone, or a threaded group whose list cannot be read
        return set()


def _rmdir(group: Path) -> None:
    # The kernel lets go of the last process a moment after it is gone from the list.
    deadline = time.monotonic() + KILL_PATIENCE_S
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
