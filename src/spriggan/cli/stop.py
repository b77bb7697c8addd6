"""``spriggan stop``."""

from __future__ import annotations

import click

from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.list import all_sprites
from spriggan.cli.refusal import Refused
from spriggan.cli.selection import sprite_name


@click.command("stop", cls=Command)
@click.argument("name", required=False)
@sprite_option
@click.option("--all", "everything", is_flag=True, help="Stop all sprites of the server.")
@pass_settings
def command(settings: Settings, name: str | None, everything: bool) -> None:
    """Stop the sprite NAME: its processes end, its disk stays, the next command starts it again.

    \b
    Example:
      spriggan stop dev
      spriggan stop --all
    """
    if everything and name:
        raise click.UsageError("give either a NAME or --all")
    with Api(find(settings)) as api:
        if not everything:
            _stop(api, sprite_name(settings, name))
            return
        for sprite in all_sprites(api):
            if sprite.get("status") == "cold":
                continue
            try:
                _stop(api, sprite["name"])
            except Refused as error:
                if error.status != 404:  # destroyed meanwhile
                    raise


def _stop(api: Api, name: str) -> None:
    api.post(f"/v1/sprites/{segment(name)}/stop")
    click.echo(f"Stopped {name}")
