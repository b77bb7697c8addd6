"""What the commands load: somebody waits for it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        ("version", {"asyncio", "httpx", "sqlalchemy", "ssl"}),
        ("exec", {"httpx", "h11", "sqlalchemy", "pydantic"}),
        ("list", {"sqlalchemy", "pydantic", "fastapi", "websockets"}),
    ],
)
def test_a_command_loads_only_what_it_needs(command: str, unwanted: set[str]) -> None:
    program = f"import sys, spriggan.cli.main, spriggan.cli.{command}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert f"spriggan.cli.{command}" in loaded and unwanted & loaded == set()
