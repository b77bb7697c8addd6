"""``spriggan use``."""

from __future__ import annotations

import click

from spriggan.cli import selection
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, pass_settings
from spriggan.cli.endpoint import find, segment


@click.command("use", cls=Command)
@click.argument("name", required=False)
@click.option("--unset", is_flag=True, help="Forget the sprite of this directory.")
@pass_settings
def command(settings: Settings, name: str | None, unset: bool) -> None:
    """Remember the sprite NAME for this directory, in the file .sprite.

    \b
    Example:
      spriggan use dev
      spriggan use --unset
    """
    if unset == bool(name):
        raise click.UsageError("give either a NAME or --unset")
    if unset:
        click.echo("Forgotten" if selection.forget() else "Nothing was remembered here")
        return
    with Api(find(settings.data)) as api:
        sprite = api.get(f"/v1/sprites/{segment(name or '')}")
    selection.write(sprite.get("organization", ""), sprite["name"])
    click.echo(f"Commands in this directory now mean the sprite {sprite['name']}")
