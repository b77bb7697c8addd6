"""``spriggan config``."""

from __future__ import annotations

import click

from spriggan.cli.api import Api
from spriggan.cli.command import Group, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name
from spriggan.errors import InvalidRequest


@click.group("config", cls=Group)
def command() -> None:
    """Change what a sprite is set to.

    \b
    Example:
      spriggan config update -s dev --label ci
    """


@command.command("update")
@sprite_option
@click.option("--url-auth", type=click.Choice(["sprite", "public"]), help="Who may open its URL.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="Replaces all; may be repeated.")
@click.option("--clear-labels", is_flag=True, help="Take all labels away.")
@pass_settings
def update(settings: Settings, url_auth: str | None, labels: tuple[str, ...], clear_labels: bool) -> None:
    """Change URL authentication or labels of a sprite; what is not named stays.

    \b
    Example:
      spriggan config update -s dev --url-auth public --label ci --label team-a
    """
    body: dict[str, object] = {}
    if url_auth:
        body["url_settings"] = {"auth": url_auth}
    if labels:
        body["labels"] = list(labels)
    if clear_labels:
        body["clear_labels"] = True
    if not body:
        raise InvalidRequest("nothing to change is named", hint="for example: --url-auth sprite")
    name = sprite_name(settings)
    with Api(find(settings)) as api:
        api.put(f"/v1/sprites/{segment(name)}", body)
    click.echo(f"Changed {name}")
