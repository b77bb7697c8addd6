"""Writes the table of docs/compatibility.md that says which client proved what.

python scripts/compatibility.py           # write it
python scripts/compatibility.py --check   # fail if it is not up to date
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import proof  # noqa: E402 - found only now

PAGE = ROOT / "docs/compatibility.md"
BEGIN, END = "<!-- proofs -->\n", "<!-- end of proofs -->\n"


def table() -> str:
    """The rows that tests prove, by the clients that they use."""
    clients = [proof.PYTHON, proof.JAVASCRIPT, proof.COMMAND_LINE, proof.PLAIN]
    lines = [f"| row | {' | '.join(clients)} |", "|---" * (len(clients) + 1) + "|"]
    for row, proved in sorted(proof.proofs(ROOT / "tests/api", ROOT / "tests/functional").items()):
        marks = " | ".join("yes" if client in proved else "" for client in clients)
        lines.append(f"| {row} | {marks} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table as it is to be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(
            PAGE.read_text() != page() and "docs/compatibility.md is not up to date: run this without --check"
        )
    PAGE.write_text(page())
