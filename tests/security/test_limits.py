"""A sprite cannot raise its own limits, whatever it mounts and whatever groups it makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from attacks import attack, create, running, wait_for, works

import serving
from spriggan.linux import cgroup


@pytest.fixture
def hog(server: serving.Server) -> Iterator[Any]:
    made = create(server, "wants-more", ram_mb=256, cpus=1)
    serving.run(made, "true")  # it has a group for as long as it runs
    yield made
    made.delete()


def limits(server: serving.Server, sprite: Any) -> dict[str, str]:
    """What the host's own files say of the sprite's box and the group that it sees."""
    with server.http() as http:
        identity = http.get(f"/v1/sprites/{sprite.name}").json()["id"]
    found = {}
    for root in cgroup.hierarchies().roots():
        box = root / f"spriggan-{server.instance}" / identity / "box"
        for file in (*box.glob("*"), *(box / "inner").glob("*")):
            told = (
                "max",
                "limit",
                "quota",
                "period",
                "shares",
                "weight",
                "devices.list",
                "cpuset.",
                "freeze",
            )
            if any(word in file.name for word in told) and "usage" not in file.name:
                with contextlib.suppress(OSError):
                    found[str(file)] = file.read_text()
    return found


# Writes everything that would be more into every file of every hierarchy, with and without asking first.
ASSAIL = """
def assail(top):
    for directory, _, names in os.walk(top):
        for name in names:
            if name in ("cgroup.procs", "cgroup.threads", "tasks", "cgroup.kill", "cgroup.freeze", "freezer.state"):
                continue
            path = f"{directory}/{name}"
            for change in (lambda: os.chmod(path, 0o666), lambda: os.chown(path, 0, 0)):
                try:
                    change()
                except OSError:
                    pass
            for value in ("max", "-1", str(1 << 50), "100000 100000", "+memory +pids +cpu", "a *:* rwm", "0-63", "1"):
                try:
                    with open(path, "w") as file:
                        file.write(value)
                except OSError:
                    pass
def kinds():
    for line in open("/proc/self/cgroup"):
        number, names, _ = line.split(":")
        yield ("cgroup2", "") if number == "0" else ("cgroup", names)
def mounted(kind, options):
    os.makedirs("/tmp/groups", exist_ok=True)
    return libc.mount(b"none", b"/tmp/groups", kind.encode(), 0, options.encode()) == 0
mounts = 0
assail("/sys/fs/cgroup")
for flags in (0, 0x02000000, 0x10000000 | 0x20000 | 0x02000000):
    assert flags == 0 or libc.unshare(flags) == 0
    for kind, options in kinds():
        if mounted(kind, options):
            mounts += 1
            assail("/tmp/groups")
            assail("/tmp/groups/..")
            libc.umount2(b"/tmp/groups", 2)
print(mounts)
"""

# In a group of its own without any limit.
FREE = """
groups = []
for directory, _, names in os.walk("/sys/fs/cgroup"):
    if "cgroup.procs" in names and not directory.endswith("/free"):
        try:
            os.makedirs(f"{directory}/free", exist_ok=True)
            with open(f"{directory}/free/cgroup.procs", "w") as file:
                file.write("0")
            groups.append(f"{directory}/free")
        except OSError:
            pass
for group in groups:
    for name, value in (("memory.max", "max"), ("memory.limit_in_bytes", "-1"), ("pids.max", "max"),
                        ("cpu.cfs_quota_us", "-1"), ("memory.oom_control", "1")):
        try:
            with open(f"{group}/{name}", "w") as file:
                file.write(value)
        except OSError:
            pass
"""


def test_limits_stay(server: serving.Server, hog: Any) -> None:
    before = limits(server, hog)
    assert any("memory" in path for path in before) and any("pids.max" in path for path in before)
    assert int(attack(hog, ASSAIL)) > 0, "nothing could be mounted; then this tests little"
    assert limits(server, hog) == before


def test_a_group_of_ones_own_is_no_way_out(server: serving.Server, hog: Any, sprite: Any) -> None:
    eat = FREE + "print(len(groups), flush=True)\nmemory = bytearray(b'x') * (600 << 20)\nfull()\n"
    with running(server, hog.name, eat) as eater:
        wait_for(lambda: eater.ended or eater.full is not None)
    assert eater.words and int(eater.words[0]) > 0, "no group could be made; then this tests little"
    assert eater.killed and eater.full is None, "it has got 600 MiB where 256 are allowed"
    works(server, sprite)
    works(server, hog)


def test_the_groups_of_others_are_not_there(server: serving.Server, sprite: Any) -> None:
    found = attack(
        sprite,
        """
names = set()
for directory, _, _ in os.walk("/sys/fs/cgroup"):
    names.add(os.path.basename(directory))
print(open("/proc/self/cgroup").read() + open("/proc/1/cgroup").read() + " ".join(names))
""",
    )
    assert "spriggan" not in found and ".." not in found, found
    assert server.instance not in found
