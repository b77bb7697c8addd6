"""``spriggan fork``."""

from __future__ import annotations

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, json_option, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name


@click.command("fork", cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME] NEW_NAME")
@sprite_option
@click.option("--checkpoint", metavar="ID", help="Start from this checkpoint, not from the live disk.")
@json_option
@pass_settings
def command(settings: Settings, *, names: tuple[str, ...], checkpoint: str | None, as_json: bool) -> None:
    """Make the sprite NEW_NAME with a clone of the disk of NAME, which goes on running.

    \b
    Example:
      spriggan fork dev experiment
      spriggan fork dev before --checkpoint v1
    """
    if len(names) not in (1, 2):
        raise click.UsageError("give the sprite to fork and the name of the new one")
    source = sprite_name(settings, names[0] if len(names) == 2 else None)
    body = {"name": names[-1]} | ({"checkpoint": checkpoint} if checkpoint else {})
    with Api(find(settings)) as api:
        sprite = api.post(f"/v1/sprites/{segment(source)}/fork", body)
    if as_json:
        output.as_json(sprite)
    else:
        click.echo(f"Forked {source} as {sprite['name']}")
