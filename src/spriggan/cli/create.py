"""``spriggan create``."""

from __future__ import annotations

import secrets
import sys
from typing import Any

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Number, Settings, json_option, pass_settings
from spriggan.cli.console import open_console
from spriggan.cli.endpoint import find
from spriggan.cli.variables import assignments


@click.command("create", cls=Command)
@click.argument("name", required=False)
@click.option("--image", metavar="NAME", help="The image to start from (default: the default image).")
@click.option("--box", metavar="KIND", help="The walls around it (default: container).")
@click.option("--ram", "ram_mb", type=click.IntRange(min=1), metavar="MIB", help="Memory in MiB.")
@click.option("--cpus", type=Number(min=0.1), metavar="N", help="Number of CPUs (default: all).")
@click.option("--storage", "storage_gb", type=click.IntRange(min=1), metavar="GB", help="Size of the disk.")
@click.option("--env", multiple=True, metavar="K=V[,K2=V2]", help="Environment of every command in it.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="A label; may be repeated.")
@click.option("--skip-console", is_flag=True, help="Do not open a console in it.")
@json_option
@pass_settings
def command(
    settings: Settings,
    *,
    name: str | None,
    image: str | None,
    box: str | None,
    ram_mb: int | None,
    cpus: float | None,
    storage_gb: int | None,
    env: tuple[str, ...],
    labels: tuple[str, ...],
    skip_console: bool,
    as_json: bool,
) -> None:
    """Make the sprite NAME, and on a terminal open a console in it. Without NAME it gets one.

    \b
    Example:
      spriggan create dev
      spriggan create dev --skip-console
      spriggan create big --ram 8192 --cpus 4 --storage 100
    """
    config = {"ram_mb": ram_mb, "cpus": cpus, "storage_gb": storage_gb}
    wanted: dict[str, Any] = {
        "image": image,
        "box": box,
        "config": {key: value for key, value in config.items() if value is not None},
        "environment": assignments(env),
        "labels": list(labels),
    }
    body = {
        "name": _some_name() if name is None else name,
        **{key: value for key, value in wanted.items() if value},
    }
    with Api(find(settings)) as api:
        sprite = api.post("/v1/sprites", body)
    if as_json:
        output.as_json(sprite)
        return
    click.echo(f"Created {sprite['name']}; try: spriggan console -s {sprite['name']}")
    if not skip_console and sys.stdin.isatty() and sys.stdout.isatty():
        settings.sprite = sprite["name"]
        open_console(settings)


def _some_name() -> str:
    return f"sprite-{secrets.token_hex(4)}"
