"""Keep the kernel ready to move processes between cgroups.

Whoever moves a process takes a lock that all forks and exits hold for reading. The first one after a pause
waits for an RCU grace period, 10 ms and more; those that follow within the next do not
(cgroup_threadgroup_rwsem, kernel/rcu/sync.c). To start a sprite and a command in it moves three processes,
each about as long after the one before as the kernel takes to forget. So for as long as such a
thing is to be expected, a thread moves this process to where it is already, which does nothing else.

While a sprite starts thousands of processes the lock is not to be had for a second and more: a fork that holds
it waits for its turn behind all of them, and whoever waits for the lock holds up every other fork on the host.
Then there is nothing to be gained, and the thread leaves it alone for a while.

From Linux 6.18 on, the mount option "favordynmods" of version 2 gives each process such a lock of its own
(cgroup_attach_lock, kernel/cgroup/cgroup.c), and nobody waits for anybody. It is for the whole host and until it
restarts. Before, it does without the grace period alone, which is for the host's owner to decide.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import re
import subprocess
import threading
import time
from pathlib import Path

from spriggan.linux.cgroup import Hierarchies, hierarchies

log = logging.getLogger(__name__)

OWN_LOCKS_SINCE = (6, 18)
BEAT_S = 0.004
LASTS_S = 0.5
CONTENDED_S = 0.1  # several grace periods
PAUSE_S = 10.0


def favor_moves() -> bool:
    """Have the kernel give each process a lock of its own, where it is able to. Whether it moves processes at once."""
    host = hierarchies()
    if host.unified is None or host.favors_moves or _linux() < OWN_LOCKS_SINCE:
        return host.favors_moves
    # The program, and not mount(2), as that would reset all other options of the mount.
    command = ["mount", "-o", "remount,favordynmods", str(host.unified)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        log.warning("forks of one sprite can hold up those of others: %s", done.stderr.strip())
    return hierarchies().favors_moves


def _linux() -> tuple[int, ...]:
    """The kernel's version, such as (6, 12)."""
    return tuple(map(int, re.findall(r"\d+", platform.release())[:2]))


class Readiness:
    """``expect`` says that processes will be moved soon; the thread runs from the first time on."""

    def __init__(self, host: Hierarchies) -> None:
        self._procs = _own_group(host) / "cgroup.procs"
        self._until = 0.0
        self._not_before = 0.0
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def expect(self) -> None:
        """Be ready, for half a second from now, if the lock can be had. Returns at once."""
        if time.monotonic() < self._not_before:
            return
        self._until = time.monotonic() + LASTS_S
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)
            self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            # Held open, for to open it takes ten times as long as to write; where that fails, it is slower,
            # and no more.
            with contextlib.suppress(OSError), self._procs.open("wb", buffering=0) as procs:
                while (begin := time.monotonic()) < self._until and not self._closed:
                    procs.write(b"0")
                    if time.monotonic() - begin > CONTENDED_S:
                        self._not_before = time.monotonic() + PAUSE_S
                        break
                    time.sleep(BEAT_S)


def _own_group(host: Hierarchies) -> Path:
    """The directory of this process's own group in one hierarchy; which one does not matter."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        root = host.v1.get(controllers) if controllers else host.unified
        if root is not None and (root / path.lstrip("/")).exists():
            return root / path.lstrip("/")
    return host.roots()[0]
