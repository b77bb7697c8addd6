"""The doctor on this machine: what it prints, and that it leaves nothing, however it ends."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from doctoring import ESSENTIAL, NEEDS, OPTIONAL, SPRIGGAN, examine

from spriggan.linux import cgroup, loop

pytestmark = NEEDS

SETTINGS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "user/max_user_namespaces")


@pytest.fixture
def group() -> Iterator[cgroup.Group]:
    """A cgroup for the doctor's processes, to see that none is left."""
    made = cgroup.Group(f"/spriggan-test-doctor-{os.getpid()}", cgroup.hierarchies())
    made.create()
    try:
        yield made
    finally:
        made.kill()
        made.remove()


def test_json_says_everything_about_every_check() -> None:
    report = examine()
    assert set(report.facts) == {"version", "machine", "data", "ok", "checks"}
    assert set(report.facts["machine"]) == {"system", "kernel", "architecture", "cpus"}
    assert report.facts["data"] == "/var/tmp"
    names = [check["name"] for check in report.facts["checks"]]
    assert len(names) == len(set(names))
    assert set(names) == ESSENTIAL | OPTIONAL
    for check in report.facts["checks"]:
        assert set(check) == {"name", "title", "essential", "status", "detail", "costs", "fix", "seconds"}
        assert check["essential"] == (check["name"] in ESSENTIAL)
        assert check["status"] in ("works", "limited", "missing")  # root on a real machine: all is known
        assert check["detail"]
        assert check["costs"] or check["status"] == "works"


def test_the_essentials_work_where_the_other_tests_run() -> None:
    report = examine("--essential")
    assert report.code == 0, report.facts
    assert set(report.statuses) == ESSENTIAL


def test_people_get_aligned_lines_in_two_groups_without_colours_in_a_pipe() -> None:
    done = subprocess.run(
        [SPRIGGAN, "doctor", "--data", "/var/tmp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    first, second = lines.index("Essential: without these no sprite runs"), lines.index("Optional")
    essential = [line for line in lines[first + 1 : second] if line and not line.startswith(" " * 4)]
    assert len(essential) == len(ESSENTIAL)
    details = {line.index(text) for line, text in zip(essential, map(_detail, essential), strict=True)}
    assert len(details) == 1  # one column


def test_a_terminal_gets_colours() -> None:
    master, slave = pty.openpty()
    with subprocess.Popen([SPRIGGAN, "doctor", "--essential"], stdout=slave, stderr=slave):
        os.close(slave)
        output = b""
        try:
            while more := os.read(master, 65536):
                output += more
        except OSError:  # the other end is closed
            pass
    os.close(master)
    assert b"\x1b[32mworks" in output


def test_nothing_is_left_and_nothing_is_changed(group: cgroup.Group, tmp_path: Path) -> None:
    before = _machine()
    process = _start(group, tmp_path / "no" / "data")
    assert process.wait(60) == 0
    assert _machine() == before
    assert not _left(group, process.pid)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_it_is_interrupted(
    group: cgroup.Group, tmp_path: Path, number: signal.Signals, after: float
) -> None:
    process = _start(group, tmp_path)
    time.sleep(after)
    os.killpg(process.pid, number)
    # It may have been done by then, or not have begun.
    assert process.wait(60) in (0, 130, -number)
    assert not _left(group, process.pid)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_when_it_is_killed_but_an_empty_cgroup(group: cgroup.Group, tmp_path: Path) -> None:
    process = _start(group, tmp_path)
    time.sleep(0.3)
    process.kill()
    process.wait()
    _settle(group)
    empty = cgroup.Group(f"/spriggan-doctor-{process.pid}", cgroup.hierarchies())
    try:
        assert not empty.pids()
    finally:
        empty.remove()
    assert not _left(group, process.pid)


def test_its_namespaces_keep_no_copy_of_a_mounted_disk(group: cgroup.Group, tmp_path: Path) -> None:
    """Else its owner could not unmount it while a doctor runs."""
    image, place = tmp_path / "disk.img", tmp_path / "place"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        process = _start(group, Path("/var/tmp"))
        seen = copies = 0
        while process.poll() is None:
            for pid in group.pids():
                with contextlib.suppress(OSError):
                    table = Path(f"/proc/{pid}/mountinfo").read_text()
                    if " - tmpfs doctor " in table:  # a cell that is ready
                        seen += 1
                        copies += f" {place} " in table
        assert seen
        assert not copies
    finally:
        subprocess.run(["umount", place], check=True)


def _detail(line: str) -> str:
    """The third column: what follows the title, which is followed by at least two spaces."""
    return line[10:].split("  ", 1)[1].lstrip()


def _start(group: cgroup.Group, data: Path) -> subprocess.Popen[bytes]:
    """The doctor, in a session and a cgroup of its own, when it has printed something."""
    lists = [str(root / group.path.strip("/") / "cgroup.procs") for root in group.host.roots()]
    join = "".join(f"echo $$ >{shlex.quote(file)}; " for file in lists)
    command = ["sh", "-ec", f'{join}exec "$@"', "sh", SPRIGGAN, "doctor", "--data", str(data)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True)
        while not os.fstat(output.fileno()).st_size:
            assert process.poll() is None
            time.sleep(0.005)
    return process


def _settle(group: cgroup.Group) -> None:
    """The kernel ends what was killed a moment later."""
    deadline = time.monotonic() + 20
    while group.pids() and time.monotonic() < deadline:
        time.sleep(0.01)


def _left(group: cgroup.Group, pid: int) -> list[str]:
    """What is left, and stays; others may run doctors, whose tries come and go."""
    deadline = time.monotonic() + 20
    while (left := [str(p) for p in group.pids()] + _traces(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _machine() -> dict[str, str]:
    return {
        name: (Path("/proc/sys") / name).read_text()
        for name in SETTINGS
        if (Path("/proc/sys") / name).exists()
    }


def _traces(pid: int) -> list[str]:
    """What the tries of the doctor with that pid would leave. Others may run doctors at the same time."""
    traces = [
        f"cgroup {path}"
        for root in cgroup.hierarchies().roots()
        for path in root.glob(f"spriggan-doctor-{pid}*")
    ]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    traces += [line for line in mounts if " - tmpfs doctor " in line or "fuse doctor" in line]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    traces += [line for line in tables.splitlines() if "doctor" in line]
    alive = {str(device.path) for device in loop.attached()}
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        if path.exists() and f"/dev/{path.parts[3]}" in alive and "/overlay/disk.img" in path.read_text():
            traces.append(path.read_text())
    return traces
