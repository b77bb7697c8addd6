"""``spriggan version``."""

from __future__ import annotations

import click

from spriggan import __version__
from spriggan.cli.command import Command


@click.command("version", cls=Command)
def command() -> None:
    """Print the version of this command.

    \b
    Example:
      spriggan version
    """
    click.echo(f"spriggan {__version__}")
