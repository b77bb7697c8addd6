"""A checkpoint of much and of little, with 64 MiB not yet written out.

By the official client, up to the end of its stream; ``podman commit`` copies what has changed. The two trees take
turns, and what a commit has written is on the disk before the next checkpoint is measured. ``the first`` checkpoint
after a tree was made also writes out the tree.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
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
    podman = setting.podman
    with ExitStack() as stack:
        product = stack.enter_context(setting.product())
        # Once for the larger one: podman takes a minute.
        few, many = trees = [Tree(1_000, commits=setting.some(4)), Tree(100_000, commits=1)]
        sprites = [stack.enter_context(product.sprite(of.name)) for of in trees]
        for of, sprite in zip(trees, sprites, strict=True):
            sprite.run(*tree(of.count))
            of.first.append(_checkpoint(sprite))
            podman.start(of.name)
            stack.callback(podman.remove, of.name)
            podman.exec(of.name, *tree(of.count))
        for number in range(setting.rounds):
            for of, sprite in list(zip(trees, sprites, strict=True))[:: -1 if number % 2 else 1]:
                if number < of.commits:
                    of.theirs.append(_commit(podman, of.name, number))
                os.sync()
                of.ours.append(_checkpoint(sprite))
    return [
        *few.rows(),
        *many.rows(),
        Row("100,000 files against 1,000", many.ours, against=Row("1,000 files", few.ours), aim=1.5),
    ]


@dataclass
class Tree:
    """A sprite and a container of podman with as many files, and milliseconds of their checkpoints and commits."""

    count: int
    commits: int  # how often podman's is measured
    first: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"tree-{self.count}"

    def rows(self) -> list[Row]:
        peer = Row(f"podman commit, 64 MiB dirty, {self.count:,} files", self.theirs)
        return [
            peer,
            Row(f"checkpoint, 64 MiB dirty, {self.count:,} files", self.ours, against=peer, aim=0.25),
            Row(f"the first, {self.count:,} files and 64 MiB dirty", self.first, against=peer),
        ]


def _commit(podman: Podman, name: str, number: int) -> float:
    podman.exec(name, "sh", "-c", dirty(PLACE))
    return timed(lambda: podman.commit(name, f"{name}-{number}"))  # to remove it would take podman as long


def _checkpoint(sprite: Any) -> float:
    serving.run(sprite, dirty(PLACE))
    return timed(lambda: serving.finished(sprite.create_checkpoint("")))
