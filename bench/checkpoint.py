"""A checkpoint of much and of little, with 64 MiB not yet written out.

By the official client, up to the end of its stream; ``podman commit`` copies what has changed.
"""

from __future__ import annotations

from typing import Any

import serving
from bench.figures import Row
from bench.peers import Podman, timed
from bench.setting import Setting

DIRTY = 64 << 20
# COUNT files in directories of 1,000; run by the sprite's and the peer's own Python.
TREE = """
import os
for number in range({count}):
    if number % 1000 == 0:
        os.makedirs(f"{place}/tree/{{number // 1000}}")
    with open(f"{place}/tree/{{number // 1000}}/{{number}}", "w") as file:
        file.write("x" * 500)
"""
PLACE = "/home/sprite"


def dirty(place: str) -> str:
    return f"head -c {DIRTY} /dev/urandom > {place}/dirty"


def tree(count: int) -> list[str]:
    return ["python3", "-c", TREE.format(count=count, place=PLACE)]


def measure(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    few = _of_tree(setting, 1_000, setting.some(4), rows)
    many = _of_tree(setting, 100_000, 1, rows)  # podman's takes a minute
    rows.append(Row("100,000 files against 1,000", many, against=Row("1,000 files", few), aim=1.5))
    return rows


def _of_tree(setting: Setting, count: int, commits: int, rows: list[Row]) -> list[float]:
    podman = setting.podman
    ours: list[float] = []
    theirs: list[float] = []
    name = f"tree-{count}"
    with setting.product() as product, product.sprite(name) as sprite:
        podman.start(name)
        podman.exec(name, *tree(count))
        sprite.run(*tree(count))
        for number in range(setting.rounds):
            if number < commits:
                theirs.append(_commit(podman, name, number))
            ours.append(_checkpoint(sprite))
        podman.remove(name)
    peer = Row(f"podman commit, 64 MiB dirty, {count:,} files", theirs)
    rows += [peer, Row(f"checkpoint, 64 MiB dirty, {count:,} files", ours, against=peer, aim=0.25)]
    return ours


def _commit(podman: Podman, name: str, number: int) -> float:
    podman.exec(name, "sh", "-c", dirty(PLACE))
    return timed(lambda: podman.commit(name, f"{name}-{number}"))  # to remove it would take podman as long


def _checkpoint(sprite: Any) -> float:
    serving.run(sprite, dirty(PLACE))
    return timed(lambda: serving.finished(sprite.create_checkpoint("")))
