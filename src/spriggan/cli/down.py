"""``spriggan down``."""

from __future__ import annotations

import asyncio

import click

from spriggan.cli.command import Command, Settings, pass_settings, require_root
from spriggan.cli.output import printable
from spriggan.engine import offline


@click.command("down", cls=Command)
@pass_settings
def command(settings: Settings) -> None:
    """Stop everything of a data directory, with or without a server: sprites, pool, network rules.

    Disks, checkpoints and images stay; 'spriggan serve' brings all back.

    \b
    Example:
      sudo spriggan down
    """
    require_root("stopping everything")
    asyncio.run(offline.down(settings.data, lambda line: click.echo(printable(line))))
