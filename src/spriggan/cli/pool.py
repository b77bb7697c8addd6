"""``spriggan pool``."""

from __future__ import annotations

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Group, Settings, json_option, pass_settings
from spriggan.cli.endpoint import find
from spriggan.cli.list import all_sprites


@click.group("pool", cls=Group)
def command() -> None:
    """Show and trim the space that disks and checkpoints take.

    \b
    Example:
      spriggan pool show
    """


@command.command("show")
@json_option
@pass_settings
def show(settings: Settings, as_json: bool) -> None:
    """Show the space of the pool and who uses it.

    A disk shares what it has not changed with its checkpoints and forks, so the sum of the
    parts may be larger than the whole.

    \b
    Example:
      spriggan pool show
    """
    with Api(find(settings)) as api:
        usage = api.get("/v1/pool")["pool"]
        names = {} if as_json else {sprite["id"]: sprite["name"] for sprite in all_sprites(api)}
    if as_json:
        output.as_json(usage)
        return
    output.facts(
        [
            ("host", f"{output.size(usage['host_free'])} free of {output.size(usage['host_total'])}"),
            ("pool", f"{output.size(usage['pool_used'])} used"),
            ("on the host", output.size(usage["pool_allocated"])),
        ]
    )
    click.echo()
    output.table(
        ("SPRITE", "DISK", "CHECKPOINTS", "LARGEST CHECKPOINT"),
        (
            (
                names.get(sprite_id, sprite_id),
                output.size(disk),
                len(usage["checkpoints"].get(sprite_id, {})),
                output.size(max(usage["checkpoints"].get(sprite_id, {}).values(), default=None)),
            )
            for sprite_id, disk in usage["disks"].items()
        ),
    )


@command.command("trim")
@json_option
@pass_settings
def trim(settings: Settings, as_json: bool) -> None:
    """Give the space of what sprites have deleted back to the host now.

    \b
    Example:
      spriggan pool trim
    """
    with Api(find(settings)) as api:
        trimmed = api.post("/v1/pool/trim")
    if as_json:
        output.as_json(trimmed)
    else:
        click.echo(f"Gave {output.size(trimmed['trimmed_bytes'])} back to the host")
