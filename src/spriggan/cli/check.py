"""``spriggan check``."""

from __future__ import annotations

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, json_option, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name

WELL = ("healthy", "hibernated")


@click.command("check", cls=Command)
@click.argument("name", required=False)
@sprite_option
@json_option
@pass_settings
@click.pass_context
def command(ctx: click.Context, settings: Settings, name: str | None, as_json: bool) -> None:
    """Say whether the sprite NAME is well, without waking it; exit with 1 if it is not.

    \b
    Example:
      spriggan check dev
    """
    wanted = sprite_name(settings, name)
    with Api(find(settings)) as api:
        health = api.get(f"/v1/sprites/{segment(wanted)}/check")
    if as_json:
        output.as_json(health)
    else:
        reason = f": {health['reason']}" if health.get("reason") else ""
        click.echo(output.printable(f"{wanted} is {health['status']}{reason}"))
    if health["status"] not in WELL:
        ctx.exit(1)
