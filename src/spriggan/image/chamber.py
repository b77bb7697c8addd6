"""Where one stage is made: a root directory with /dev, /proc and an empty /tmp and /run.

It exists in the private mount and pid namespaces of one process (``assembly``), so that nothing
needs to be undone: when that ends, however it happens, the mounts are gone.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from spriggan.image.command import Runner


@dataclass(frozen=True)
class Chamber:
    """What to mount, and what to run in it, one command after the other."""

    work: str  # a directory of the stage: holds root, upper, work and lower
    layers: list[str]  # layer files, topmost first; none: root is a plain directory
    archives: str  # directory of downloaded packages, or ""
    commands: list[list[str]]

    @property
    def root(self) -> Path:
        return Path(self.work) / "root"

    @property
    def tree(self) -> Path:
        """What the stage adds: the directory to be packed."""
        return Path(self.work) / "upper" if self.layers else self.root

    def run(self, runner: Runner, *, what: str, environment: dict[str, str], cwd: Path) -> None:
        """Run the commands in new namespaces."""
        for name in ("root", "upper", "work", "lower"):
            (Path(self.work) / name).mkdir(exist_ok=True)
            (Path(self.work) / name).chmod(0o755)  # upper's mode is that of the image's root
        description = Path(self.work) / "chamber.json"
        description.write_text(json.dumps(asdict(self)))
        search = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        runner.run(
            [sys.executable, "-P", "-m", "spriggan.image.assembly", description],
            what=what,
            isolated=True,
            environment={**search, **environment},
            cwd=cwd,
        )
