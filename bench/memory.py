"""What an idle running sprite takes of memory, with all that it needs outside.

PSS: what a process has for itself, and its part of what it shares with others. A sprite's own are its pilot, keeper
and init; ``with its part`` adds the server and the zygote, divided by the number of sprites. podman's are a container's
init and its ``conmon``, which serve nothing by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import serving
from bench.figures import Row
from bench.setting import Setting

COUNTS = (10, 50, 100, 200)
AIM_MIB = 10
PODMAN_COUNT = 10


def measure(setting: Setting) -> list[Row]:
    peer = Row("podman: a container's init and conmon", _containers(setting), "MiB")
    rows: list[Row] = [peer]
    # None of them may fall asleep, or be asked for anything, before all are there.
    with setting.product("--idle", "3600") as product:
        made = 0
        for count in COUNTS:
            while made < count:
                made += 1
                product.client.create_sprite(f"idle-{made}").run("true")
            everything = _processes(product.server)
            own = {pid: where for pid, where in everything.items() if where}
            each = [_of_sprite(own, sprite_id) for sprite_id in sorted(set(own.values()))]
            if len(each) != count:
                raise RuntimeError(f"{len(each)} of {count} sprites run")
            whole = [_mib(everything) / count]
            rows += [
                Row(f"a sprite's own processes, {count} sprites", each, "MiB", against=peer),
                Row(
                    f"each of {count}, with its part",
                    whole,
                    "MiB",
                    against=peer,
                    aim=AIM_MIB,
                    aim_in_unit=True,
                ),
            ]
    return rows


def _containers(setting: Setting) -> list[float]:
    """The same of podman's containers."""
    podman = setting.podman
    names = [f"idle-{number}" for number in range(PODMAN_COUNT)]
    for name in names:
        podman.run(name)
    found = [_mib(podman.processes(name)) for name in names]
    for name in names:
        podman.remove(name)
    return found


def _processes(server: serving.Server) -> dict[int, str]:
    """Every process of the server: its pid, and the sprite that it belongs to, or nothing."""
    found = {server.pid: ""}
    group = re.compile(rf"/spriggan-{server.instance}/(sprite-[^/\n]+)")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = group.search((entry / "cgroup").read_text())
                command = (entry / "cmdline").read_text()
            except OSError:
                continue
            if where:
                found[int(entry.name)] = where[1]
            elif f"/run/spriggan/{server.instance}" in command:
                found[int(entry.name)] = ""
    return found


def _of_sprite(processes: dict[int, str], sprite_id: str) -> float:
    return _mib(pid for pid, where in processes.items() if where == sprite_id)


def _mib(processes: Iterable[int]) -> float:
    """The sum of what each has for itself and its part of what it shares (PSS)."""
    return sum(map(_pss_kib, processes)) / 1024


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
