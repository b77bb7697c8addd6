"""Build an image: one growing root, and after each stage a layer with what it added."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from spriggan.errors import NoSpace
from spriggan.image import erofs
from spriggan.image.apt import Apt
from spriggan.image.chamber import Chamber
from spriggan.image.clearing import remove_tree
from spriggan.image.command import Runner
from spriggan.image.image import Image, Layer
from spriggan.image.progress import Progress, step
from spriggan.image.recipe import Recipe, Stage
from spriggan.image.sources import Distribution
from spriggan.image.tidy import tidy

_ROOM = 3 << 30  # a build of the default image takes 2 GB at its height
_EPOCH = 1577836800  # 2020-01-01: what newer times are lowered to when no mirror says how new it is


@dataclass(frozen=True)
class Plan:
    """What a build would make, known before anything is made."""

    distribution: str
    packages: list[dict[str, str]]  # per stage
    keys: list[str]  # per stage
    epoch: int


class Build:
    """One build of ``recipe`` in ``directory``, which is the build's alone."""

    def __init__(self, recipe: Recipe, directory: Path, log: Path, progress: Progress) -> None:
        self._recipe = recipe
        self._directory = directory
        self._progress = progress
        self._runner = Runner(log, {})
        self._apt: Apt | None = None

    def plan(self) -> Plan:
        """Find out what goes in, at the present state of the mirrors."""
        if not self._recipe.uses_packages:
            none: list[dict[str, str]] = [{} for _ in self._recipe.stages]
            return Plan("", none, self._keys(none, ""), _EPOCH)
        free = shutil.disk_usage(self._directory).free
        if free < _ROOM:
            raise NoSpace(
                f"building an image needs {_ROOM >> 20} MiB, and {free >> 20} MiB are free",
                hint=f"Free space on the file system of {self._directory.parent}.",
            )
        distribution = Distribution.of_host()
        apt = Apt(self._directory / "apt", distribution, self._runner)
        with step(self._progress, "packages", f"asking the mirrors of {distribution}") as done:
            apt.prepare()
            packages = apt.solve(self._recipe)
            done.note = f"{sum(map(len, packages))} chosen"
        self._apt = apt
        keys = self._keys(packages, apt.sources_text)
        return Plan(str(distribution), packages, keys, apt.release_time())

    def make(
        self, plan: Plan, *, name: str, known: Callable[[str], tuple[Layer, Path] | None]
    ) -> tuple[Image, dict[str, Path]]:
        """Make the image; ``known`` finds layers that exist already, by key.

        Returns the image and its new layer files by digest, which are the caller's to keep.
        """
        layers: list[tuple[Layer, Path]] = []  # lowest first
        made: dict[str, Path] = {}
        downloaded = self._apt is None
        for number, (stage, key) in enumerate(zip(self._recipe.stages, plan.keys, strict=True)):
            found = known(key)
            if found is None:
                if not downloaded:
                    self._download()
                    downloaded = True
                found = self._make_layer(number, stage, key, layers, plan.epoch)
                made[found[0].digest] = found[1]
            layers.append(found)
        image = Image(
            name=name,
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            distribution=plan.distribution,
            layers=tuple(layer for layer, _ in reversed(layers)),
            user=self._recipe.user,
            shell=self._recipe.shell,
            environment=self._recipe.environment,
        )
        return image, made

    def _keys(self, packages: list[dict[str, str]], sources: str) -> list[str]:
        keys: list[str] = []
        for stage, chosen in zip(self._recipe.stages, packages, strict=True):
            below = keys[-1] if keys else ""
            keys.append(self._recipe.stage_key(stage, below=below, packages=chosen, sources=sources))
        return keys

    def _download(self) -> None:
        assert self._apt is not None  # noqa: S101  # for the type checker
        with step(self._progress, "download") as done:
            done.bytes = self._apt.download(self._recipe)

    def _make_layer(
        self, number: int, stage: Stage, key: str, below: list[tuple[Layer, Path]], epoch: int
    ) -> tuple[Layer, Path]:
        work = self._directory / str(number)
        work.mkdir()
        with step(self._progress, stage.name):
            tree = self._make_tree(work, stage, [path for _, path in reversed(below)], epoch)
            tidy(tree, epoch=epoch)
        with step(self._progress, f"pack {stage.name}") as done:
            file = self._directory / f"{number}.erofs"
            erofs.pack(tree, file, runner=self._runner, epoch=epoch)
            digest = erofs.digest(file)
            done.bytes = file.stat().st_size
        remove_tree(work)
        return Layer(digest, stage.name, file.stat().st_size, key), file

    def _make_tree(self, work: Path, stage: Stage, layers: list[Path], epoch: int) -> Path:
        root = work / "root"
        root.mkdir()
        root.chmod(0o755)
        commands = []
        if stage.bootstrap and self._apt:
            self._apt.bootstrap(root, epoch=epoch)
        if stage.packages and self._apt:
            commands.append(self._apt.install_command(root, stage.packages))
        if hook := self._recipe.hook(stage):
            commands.append(["/bin/sh", "-eu", str(hook), str(root)])
        archives = str(self._apt.archives) if stage.packages and self._apt else ""
        chamber = Chamber(str(work), [str(layer) for layer in layers], archives, commands)
        chamber.run(
            self._runner,
            what=f"making the {stage.name} layer",
            environment={"SOURCE_DATE_EPOCH": str(epoch)},
            cwd=hook.parent if hook else work,
        )
        return chamber.tree
