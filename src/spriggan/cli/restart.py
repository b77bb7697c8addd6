"""``spriggan restart``."""

from __future__ import annotations

import click

from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name


@click.command("restart", cls=Command)
@click.argument("name", required=False)
@sprite_option
@pass_settings
def command(settings: Settings, name: str | None) -> None:
    """End the processes of the sprite NAME and start it again. Its disk stays.

    \b
    Example:
      spriggan restart dev
    """
    wanted = sprite_name(settings, name)
    with Api(find(settings)) as api:
        api.post(f"/v1/sprites/{segment(wanted)}/restart")
    click.echo(f"Restarted {wanted}")
