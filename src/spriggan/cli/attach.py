"""``spriggan attach``: as in the official command line, the short form of ``sessions attach``."""

from __future__ import annotations

import click

from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.sessions import attach_session


@click.command("attach", cls=Command)
@click.argument("id_", metavar="ID")
@sprite_option
@pass_settings
def command(settings: Settings, id_: str) -> None:
    """Show all that the session ID has said, and join it; the same as 'sessions attach'.

    \b
    Example:
      spriggan attach -s dev 12
    """
    attach_session(settings, id_, stdin=True)
