"""``spriggan use``."""

from __future__ import annotations

import sys
from typing import Any

import click

from spriggan.cli import output, selection
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, pass_settings
from spriggan.cli.endpoint import find, segment
from spriggan.cli.list import all_sprites
from spriggan.errors import NotFound


@click.command("use", cls=Command)
@click.argument("name", required=False)
@click.option("--unset", is_flag=True, help="Forget the sprite of this directory.")
@pass_settings
def command(settings: Settings, name: str | None, unset: bool) -> None:
    """Remember the sprite NAME for this directory, in the file .sprite. At a terminal, NAME is asked for.

    \b
    Example:
      spriggan use dev
      spriggan use --unset
    """
    if unset and name is not None:
        raise click.UsageError("give either a NAME or --unset")
    if unset:
        click.echo("Forgotten" if selection.forget() else "Nothing was remembered here")
        return
    with Api(find(settings)) as api:
        sprite = _picked(api) if name is None else api.get(f"/v1/sprites/{segment(name)}")
    selection.write(sprite.get("organization", ""), sprite["name"])
    click.echo(f"Commands in this directory now mean the sprite {sprite['name']}")


def _picked(api: Api) -> dict[str, Any]:
    """The sprite that a person chooses from all."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("give either a NAME or --unset")
    sprites = all_sprites(api)
    if not sprites:
        raise NotFound("there are no sprites", hint="make one with 'spriggan create NAME'")
    rows = [(number, sprite["name"], sprite.get("status", "")) for number, sprite in enumerate(sprites, 1)]
    output.table(("", "NAME", "STATUS"), rows)
    chosen = click.prompt("Number", type=click.IntRange(1, len(sprites)))
    return sprites[int(chosen) - 1]
