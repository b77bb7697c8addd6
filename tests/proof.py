"""Which row of the API's reference a test proves, and with which client.

``scripts/compatibility`` makes the table in ``docs/compatibility.md`` of these.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

PYTHON = "sprites-py"
JAVASCRIPT = "@fly/sprites"
COMMAND_LINE = "spriggan"  # the command, which has the names and flags of the official one
PLAIN = "plain"  # what no published client here sends, as another one would

Test = TypeVar("Test", bound=Callable[..., object])


def proves(row: str, client: str) -> Callable[[Test], Test]:
    """Mark a test. ``row`` begins with the part of the API, as in ``exec: exit codes``."""
    return lambda test: test


def proofs(*folders: Path) -> dict[str, set[str]]:
    """Rows and the clients that prove them, by the marks in the tests of some folders."""
    found: dict[str, set[str]] = {}
    for file in sorted(file for folder in folders for file in folder.rglob("test_*.py")):
        for row, client in _marks(ast.parse(file.read_text())):
            found.setdefault(row, set()).add(client)
    return found


def _marks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    names = {"PYTHON": PYTHON, "JAVASCRIPT": JAVASCRIPT, "COMMAND_LINE": COMMAND_LINE, "PLAIN": PLAIN}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for mark in node.decorator_list:
                if (
                    isinstance(mark, ast.Call)
                    and isinstance(mark.func, ast.Name)
                    and mark.func.id == "proves"
                ):
                    row, client = mark.args
                    assert isinstance(row, ast.Constant) and isinstance(client, ast.Name)
                    yield str(row.value), names[client.id]
