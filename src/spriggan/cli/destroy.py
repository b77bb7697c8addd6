"""``spriggan destroy``."""

from __future__ import annotations

import sys

import click

from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name
from spriggan.errors import InvalidRequest


@click.command("destroy", cls=Command)
@click.argument("name", required=False)
@sprite_option
@click.option("--force", is_flag=True, help="Do not ask.")
@pass_settings
def command(settings: Settings, name: str | None, force: bool) -> None:
    """Delete the sprite NAME with its disk and all its checkpoints, for good.

    \b
    Example:
      spriggan destroy dev
      spriggan destroy dev --force
    """
    wanted = sprite_name(settings, name)
    with Api(find(settings)) as api:
        path = f"/v1/sprites/{segment(wanted)}"
        if not force:
            if not sys.stdin.isatty():
                raise InvalidRequest(f"{wanted} is not destroyed without a yes", hint="add --force")
            api.get(path)  # do not ask about what does not exist
            click.confirm(f"Destroy {wanted}, its disk and all its checkpoints?", abort=True, err=True)
        api.delete(path)
    click.echo(f"Destroyed {wanted}")
