"""Control groups: whatever is in one can be ended, all of it and nothing else."""

from __future__ import annotations

import os
import platform
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import serving
from spriggan.linux import migration
from spriggan.linux.cgroup import AWAITED, Group, hierarchies

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def group() -> Iterator[Group]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    made = Group(f"/spriggan-test-{secrets.token_hex(4)}", hierarchies())
    made.child("below").create()
    yield made
    made.kill()
    made.remove()
    assert not made.exists()


@pytest.fixture
def start(group: Group) -> Iterator[Start]:
    """Starts shell scripts that are in a group before they begin."""
    with ExitStack() as stack:

        def begin(script: str, where: Group = group) -> subprocess.Popen[bytes]:
            begun = subprocess.Popen(["/bin/sh", "-c", f"read -r go; {script}"], stdin=subprocess.PIPE)
            stack.callback(begun.wait)
            stack.callback(begun.kill)
            where.add(begun.pid)
            assert begun.stdin is not None
            begun.stdin.write(b"go\n")
            begun.stdin.close()
            return begun

        yield begin


def test_a_process_moves_itself(group: Group) -> None:
    pid = os.fork()
    if pid == 0:
        group.child("below").enter()
        signal.pause()
    try:
        listed = [root / group.path.strip("/") / "below/cgroup.procs" for root in group.host.roots()]
        serving.until(lambda: all(file.read_text().split() == [str(pid)] for file in listed))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_moves_are_favored(group: Group) -> None:
    """Since Linux 6.18 with nothing else of the mount changed, before if its owner wants it so."""

    def options() -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        fields = next(line.split() for line in lines if line.split(" - ")[1].startswith("cgroup2 "))
        return [*fields[5].split(","), *fields[-1].split(",")]

    before = options() if group.host.unified else []
    able = bool(before) and tuple(map(int, platform.release().split(".")[:2])) >= (6, 18)
    assert migration.favor_moves() == (able or "favordynmods" in before)
    if before:
        assert set(options()) - {"favordynmods"} == set(before) - {"favordynmods"}


def test_more_than_are_waited_for_at_once(group: Group, start: Start) -> None:
    count = AWAITED + 20
    start(f"i=0; while [ $i -lt {count} ]; do sleep 1000 & i=$((i + 1)); done; wait", group.child("below"))
    serving.until(lambda: len(group.pids()) > count, what="all to run")
    group.kill()
    assert group.pids() == set()


def test_those_that_start_others_all_the_time(group: Group, start: Start) -> None:
    for _ in range(3):
        start("while :; do (sleep 0.01 &) ; done", group.child("below"))
    serving.until(lambda: len(group.pids()) > 10, what="some to run")
    group.kill()
    assert group.pids() == set()


def test_one_that_stands_still(group: Group, start: Start) -> None:
    stopped = start("exec sleep 1000")
    stopped.send_signal(signal.SIGSTOP)
    frozen = start("exec sleep 1000", group.child("below"))
    group.child("below").freeze()
    group.kill()
    assert group.pids() == set()
    assert stopped.wait(30) == frozen.wait(30) == -signal.SIGKILL


def test_its_own_processes_but_for_those_to_spare(group: Group, start: Start) -> None:
    ended, spared, below = (
        start("exec sleep 1000"),
        start("exec sleep 1000"),
        start("exec sleep 1000", group.child("below")),
    )
    group.kill_own(spare={spared.pid})
    assert ended.wait(30) == -signal.SIGKILL
    assert spared.poll() is None and below.poll() is None
