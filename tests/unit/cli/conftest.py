"""The command as a process, against a small real server that plays the API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .playing import PlayedServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PlayedServer]:
    """A server on a socket in ``tmp_path`` and on a port of its own."""
    with PlayedServer(tmp_path / "data") as played:
        yield played


class Spriggan:
    """Runs ``spriggan`` in a directory of its own, without what this process has in its environment."""

    def __init__(self, data: Path, cwd: Path) -> None:
        self.data = data
        self.cwd = cwd
        # A process started by pytest would otherwise find whatever server the developer uses.
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("SPRITE", "SPRIGGAN"))}
        self.env["XDG_CONFIG_HOME"] = str(cwd / "config")

    def command(self, *arguments: str, data: bool = True) -> list[str]:
        place = ["--data", str(self.data)] if data else []
        return [sys.executable, "-c", "from spriggan.cli.main import main; main()", *place, *arguments]

    def __call__(
        self,
        *arguments: str,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        data: bool = True,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*arguments, data=data),
            input=stdin,
            capture_output=True,
            cwd=self.cwd,
            env=self.env | (env or {}),
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str, **more: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(*arguments), cwd=self.cwd, env=self.env, **more)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def spriggan(tmp_path: Path) -> Spriggan:
    """The command, pointed at the data directory that ``server`` uses."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    return Spriggan(tmp_path / "data", cwd)
