"""What an idle running sprite takes of memory, with all that it needs outside.

PSS: what a process has for itself, and its part of what it shares with others. A sprite's own are its keeper and init,
for its pilot ends some seconds after it was last needed; one line shows it with its pilot. ``with its part`` adds the
server and the zygote, divided by the number of sprites. podman's are a container's init and its ``conmon``, which serve
nothing by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import holdings
import serving
from bench.figures import Row
from bench.setting import Product, Setting

COUNTS = (10, 50, 100, 200)
AIM_MIB = 10
PODMAN_COUNT = 10
PATIENCE_S = 120  # for the last pilot to have ended


def measure(setting: Setting) -> list[Row]:
    peer = Row("podman: a container's init and conmon", _containers(setting), "MiB")
    rows: list[Row] = [peer]
    with setting.product(spares=1) as product:
        spare = [_of_sprite(_processes(product.server), each) for each in holdings.spares(product.server)]
        rows.append(Row("a spare, of which a server has one", spare, "MiB", against=peer))
    # None of them may fall asleep, for this is about running ones. All else is as it is by default.
    with setting.product("--idle", "3600") as product:
        made = 0
        for count in COUNTS:
            while made < count:
                made += 1
                product.client.create_sprite(f"idle-{made}").run("true")
            if count == COUNTS[0]:
                each = _each(_wake(product, count), count)
                rows.append(Row(f"with its pilot, {count} sprites", each, "MiB", against=peer))
            serving.until(lambda: not _pilots(product.server), PATIENCE_S, what="all pilots to have ended")
            everything = _processes(product.server)
            whole = [_mib(everything) / count]
            rows += [
                Row(
                    f"a sprite's own processes, {count} sprites",
                    _each(everything, count),
                    "MiB",
                    against=peer,
                ),
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


def _wake(product: Product, count: int) -> dict[int, str]:
    """The processes while every sprite has a pilot."""
    for number in range(1, count + 1):
        product.client.sprite(f"idle-{number}").run("true")
    pilots = _pilots(product.server)
    if len(pilots) != count:
        raise RuntimeError(f"{len(pilots)} of {count} sprites have a pilot")
    return _processes(product.server)


def _each(everything: dict[int, str], count: int) -> list[float]:
    """What each of ``count`` sprites has of its own."""
    own = {pid: where for pid, where in everything.items() if where}
    each = [_of_sprite(own, sprite_id) for sprite_id in sorted(set(own.values()))]
    if len(each) != count:
        raise RuntimeError(f"{len(each)} of {count} sprites run")
    return each


def _pilots(server: serving.Server) -> list[int]:
    """Those of ``_processes`` that are pilots or their helpers."""
    return [pid for pid in _processes(server) if _name(pid).startswith("pilot:")]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


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
