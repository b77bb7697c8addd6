"""``spriggan auth``."""

from __future__ import annotations

import click

from spriggan.cli.command import Group
from spriggan.cli.endpoint import checked_url
from spriggan.cli.login import log_in


@click.group("auth", cls=Group)
def command() -> None:
    """Remember a token without being asked for it.

    \b
    Example:
      spriggan auth setup https://sprites.example.org --token "$TOKEN"
    """


@command.command("setup")
@click.argument("url", metavar="API-URL", envvar="SPRITES_API_URL")
@click.option("--token", required=True, metavar="TOKEN", help="A token of that server.")
def setup(url: str, token: str) -> None:
    """Remember TOKEN for the server at API-URL (default: SPRITES_API_URL), and use it from now on.

    Who lists the processes of this machine may see TOKEN while this runs; 'spriggan login' reads it from
    standard input.

    \b
    Example:
      spriggan auth setup https://sprites.example.org --token "$TOKEN"
    """
    log_in(checked_url(url, "API-URL"), token)
