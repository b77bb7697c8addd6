"""Puts the figures into docs/performance.md, between its marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.figures import table

START = "<!-- figures: written by scripts/bench -->"
END = "<!-- end of figures -->"


def fill(document: Path, results: dict[str, Any]) -> None:
    """Replace what is between the marks. Raises ``ValueError`` if the document has none; then it is as before."""
    before, start, rest = document.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{document.name} has no place for the figures: {START} … {END}")
    document.write_text(f"{before}{START}\n\n{text(results)}\n\n{END}{after}", encoding="utf-8")


def text(results: dict[str, Any]) -> str:
    """All figures as Markdown: the machine, then what each benchmark is and its table."""
    parts = [machine_line(results["machine"])]
    for found in results["benchmarks"].values():
        parts += [f"## {found['title']}", found["about"]] if found["about"] else [f"## {found['title']}"]
        parts.append(table(found["rows"]) if found["failed"] is None else "This one failed in this run.")
    return "\n\n".join(parts)


def machine_line(known: dict[str, Any]) -> str:
    """Where the figures are from, in one sentence."""
    return (
        f"Measured on {known['date']} with Spriggan {known['spriggan']}: {known['cpus']} CPUs, "
        f"{known['memory_gib']} GiB of memory, {known['distribution']}, Linux {known['kernel']}, "
        f"cgroups {known['cgroups']}, {known['file_system']}, Python {known['python']}, {known['podman']}; "
        f"load {known['load']:.1f} before the start."
    )
