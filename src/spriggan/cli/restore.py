"""``spriggan restore``: as in the official command line, the short form of ``checkpoint restore``."""

from __future__ import annotations

import click

from spriggan.cli.checkpoint import restore_checkpoint
from spriggan.cli.command import Command, Settings, pass_settings, sprite_option


@click.command("restore", cls=Command)
@click.argument("id_", metavar="ID")
@sprite_option
@pass_settings
def command(settings: Settings, id_: str) -> None:
    """Put the disk back to the checkpoint ID; the same as 'checkpoint restore'.

    \b
    Example:
      spriggan restore -s dev v1
    """
    restore_checkpoint(settings, id_)
