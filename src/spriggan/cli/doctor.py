"""``spriggan doctor``."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import spriggan
from spriggan.cli import output
from spriggan.cli.command import Command, Settings, json_option, pass_settings
from spriggan.cli.output import printable
from spriggan.doctor.check import Check
from spriggan.doctor.checks import ESSENTIAL, OPTIONAL
from spriggan.doctor.examination import Result, examine
from spriggan.doctor.finding import Status

WORKERS = 4  # checks wait more than they work
COLOURS = {
    Status.WORKS: "green",
    Status.LIMITED: "yellow",
    Status.MISSING: "red",
    Status.FAILED: "magenta",
    Status.UNTRIED: "magenta",
}


@click.command("doctor", cls=Command)
@click.option("--essential", is_flag=True, help="Only what no sprite runs without.")
@json_option
@pass_settings
def command(settings: Settings, essential: bool, as_json: bool) -> None:
    """Say what this machine can do for sprites, what is missing, what that costs, and what mends it.

    Everything is really tried, in private namespaces; nothing is changed and nothing stays. With
    --data, the file system of that directory is looked at. The exit code is 0 if the essentials
    work, else 1.

    \b
    Example:
      sudo spriggan doctor
      sudo spriggan doctor --data /srv/spriggan --json
    """
    checks = ESSENTIAL + ([] if essential else OPTIONAL)
    data = settings.data.absolute()
    began = time.monotonic()
    if as_json:
        results = examine(checks, data, workers=WORKERS)
        output.as_json(_report(results, data))
    else:
        click.echo(f"{_machine()}\ndata directory {printable(data)}")
        results = examine(checks, data, workers=WORKERS, tell=_Lines(checks))
        click.echo(f"\n{_verdict(results)} ({time.monotonic() - began:.1f} s)")
    if not _is_well(results):
        raise SystemExit(1)


class _Lines:
    """Prints results as they come, aligned, under two headings."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._width = max(len(check.title) for check in checks)
        self._group: bool | None = None

    def __call__(self, result: Result) -> None:
        check, found = result.check, result.finding
        if check.essential is not self._group:
            self._group = check.essential
            click.echo("\nEssential: without these no sprite runs" if check.essential else "\nOptional")
        status = click.style(found.status.value.ljust(7), fg=COLOURS[found.status])
        click.echo(f"  {status}  {check.title.ljust(self._width)}  {_line(found.detail)}")
        for word, text in (("costs: ", found.costs), ("fix:   ", found.fix)):
            if text:
                click.echo(f"  {'':7}  {'':{self._width}}  {word}{_line(text)}")


def _line(text: str) -> str:
    return " ".join(printable(text).split())


def _is_well(results: Sequence[Result]) -> bool:
    return not any(result.stands_in_the_way for result in results)


def _verdict(results: Sequence[Result]) -> str:
    lacking = [result for result in results if result.stands_in_the_way]
    missing = [result.check.title for result in lacking if result.finding.status is Status.MISSING]
    if missing:
        return f"Sprites cannot run here: {', '.join(missing)}"
    if lacking:
        titles = ", ".join(result.check.title for result in lacking)
        return f"It is not known whether sprites can run here: {titles}"
    return "Sprites can run here"


def _report(results: Sequence[Result], data: Path) -> dict[str, Any]:
    return {
        "version": spriggan.__version__,
        "machine": {
            "system": _system(),
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "cpus": os.cpu_count() or 1,
        },
        "data": str(data),
        "ok": _is_well(results),
        "checks": [
            {
                "name": result.check.name,
                "title": result.check.title,
                "essential": result.check.essential,
                **result.finding.as_dict(),
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


def _machine() -> str:
    return f"spriggan {spriggan.__version__} on {_system()}, Linux {platform.release()}, {platform.machine()}"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "an unnamed system"
