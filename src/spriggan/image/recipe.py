"""A recipe: a directory that says what goes into an image, stage by stage.

``recipe.toml`` names the defaults and the stages, lowest first. A stage installs packages;
then, if the recipe has a directory named as the stage, its ``hook.sh`` is run there on the
host, with the root directory as ``$1``.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spriggan.errors import InvalidRequest, InvalidValue
from spriggan.image.image import check_name

# Changes when the same recipe would give a different layer because the builder changed.
_FORMAT = 1

_SPRITES = Path(__file__).parent / "files" / "sprites"


@dataclass(frozen=True)
class Stage:
    """What one layer adds to those below it."""

    name: str
    bootstrap: bool = False  # start from the distribution's minimal set of packages
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A recipe as read from its directory."""

    directory: Path
    user: str
    shell: str
    environment: dict[str, str]
    stages: tuple[Stage, ...]

    @classmethod
    def load(cls, directory: Path = _SPRITES) -> Recipe:
        """Read ``directory``/recipe.toml."""
        path = directory / "recipe.toml"
        try:
            data: dict[str, Any] = tomllib.loads(path.read_text())
            stages = tuple(
                Stage(**{**stage, "packages": tuple(stage.get("packages", ()))}) for stage in data["stage"]
            )
            recipe = cls(
                directory=directory,
                user=str(data["user"]),
                shell=str(data["shell"]),
                environment={str(k): str(v) for k, v in data.get("environment", {}).items()},
                stages=stages,
            )
            recipe._check()
        except (OSError, ValueError, TypeError, KeyError, InvalidRequest) as error:
            raise InvalidValue(f"{path} is not a recipe: {error!r}") from error
        return recipe

    @property
    def uses_packages(self) -> bool:
        return any(stage.bootstrap or stage.packages for stage in self.stages)

    def hook(self, stage: Stage) -> Path | None:
        """The script that finishes ``stage``, if it has one."""
        path = self.directory / stage.name / "hook.sh"
        return path if path.is_file() else None

    def stage_key(self, stage: Stage, *, below: str, packages: dict[str, str], sources: str) -> str:
        """The digest of all that determines a layer: recipe, package versions, the layer below."""
        inputs = {
            "format": _FORMAT,
            "stage": asdict(stage),
            "files": self._files_digest(stage),
            "packages": packages,
            "sources": sources if stage.bootstrap else "",
            "below": below,
        }
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def _files_digest(self, stage: Stage) -> str:
        digest = hashlib.sha256()
        directory = self.directory / stage.name
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{path.relative_to(directory)} {content}\n".encode())
        return digest.hexdigest()

    def _check(self) -> None:
        names = [check_name(stage.name) for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise InvalidValue(f"{self.directory}: stages need names of their own, got {names}")
        for stage in self.stages[1:]:
            if stage.bootstrap:
                raise InvalidValue(f"{self.directory}: only the first stage can bootstrap, not {stage.name}")
