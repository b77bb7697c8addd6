"""``spriggan url``."""

from __future__ import annotations

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Group, Settings, json_option, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name


@click.group("url", cls=Group, invoke_without_command=True)
@sprite_option
@json_option
@pass_settings
@click.pass_context
def command(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """Show the URL of a sprite and who may open it.

    \b
    Example:
      spriggan url -s dev
      spriggan url update -s dev --auth public
    """
    if ctx.invoked_subcommand is not None:
        return
    with Api(find(settings)) as api:
        sprite = api.get(f"/v1/sprites/{segment(sprite_name(settings))}")
    shown = {"url": sprite.get("url"), "url_settings": sprite.get("url_settings")}
    if as_json:
        output.as_json(shown)
        return
    settings_ = sprite.get("url_settings") or {}
    output.facts([("url", sprite.get("url") or "none"), *settings_.items()])


@command.command("update")
@sprite_option
@click.option("-a", "--auth", "auth", required=True, type=click.Choice(["sprite", "public"]), help="Who may.")
@pass_settings
def update(settings: Settings, auth: str) -> None:
    """Change who may open the URL of a sprite.

    \b
    Example:
      spriggan url update -s dev --auth sprite
    """
    name = sprite_name(settings)
    with Api(find(settings)) as api:
        api.put(f"/v1/sprites/{segment(name)}", {"url_settings": {"auth": auth}})
    click.echo(f"The URL of {name} is for: {auth}")
