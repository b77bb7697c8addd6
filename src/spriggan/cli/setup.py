"""``spriggan setup``."""

from __future__ import annotations

import click

from spriggan.cli.command import Command
from spriggan.image import packages


@click.command("setup", cls=Command)
@click.option("--check", is_flag=True, help="Only say what is missing; exit with 1 if anything is.")
def command(check: bool) -> None:
    """Install the system packages that Spriggan needs, with apt.

    \b
    Example:
      sudo spriggan setup
    """
    if not check:
        packages.install(click.echo)
        return
    missing = packages.missing()
    for name in missing:
        click.echo(f"{name}: {packages.PACKAGES[name]}")
    if missing:
        raise SystemExit(1)
