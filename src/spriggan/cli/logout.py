"""``spriggan logout``."""

from __future__ import annotations

import click

from spriggan.cli.command import Command, Settings, pass_settings
from spriggan.cli.servers import Servers
from spriggan.errors import NotFound


@click.command("logout", cls=Command)
@click.argument("name", metavar="[SERVER]", required=False)
@pass_settings
def command(settings: Settings, name: str | None) -> None:
    """Forget a server and its token: SERVER, else the current one.

    The token stays good for whoever else has it; 'spriggan token revoke' ends it.

    \b
    Example:
      spriggan logout
      spriggan logout https://sprites.example.org
    """
    servers = Servers.load()
    wanted = name if name is not None else settings.org
    server = servers.current if wanted is None else servers.named(wanted)
    if server is None:
        raise NotFound("no server is chosen", hint="name one of 'spriggan org list'")
    servers.without(server).save()
    click.echo(f"Forgot {server.url}")
