"""``spriggan upgrade``."""

from __future__ import annotations

import click

from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name


@click.command("upgrade", cls=Command)
@click.argument("name", required=False)
@sprite_option
@click.option("--check", is_flag=True, help="Only say which version it would be.")
@click.option("--version", metavar="VERSION", help="The one version that the server has.")
@pass_settings
def command(settings: Settings, name: str | None, check: bool, version: str | None) -> None:
    """Bring the sprite NAME to the server's version: if it is up, it is restarted.

    \b
    Example:
      spriggan upgrade dev
      spriggan upgrade dev --check
    """
    wanted = sprite_name(settings, name)
    path = f"/v1/sprites/{segment(wanted)}"
    with Api(find(settings)) as api:
        if check:
            click.echo(f"{wanted} would be of version {api.get(path)['version']}")
            return
        api.post(f"{path}/upgrade", {"version": version} if version else {})
    click.echo(f"Upgraded {wanted}")
