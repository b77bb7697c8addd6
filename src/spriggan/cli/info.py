"""``spriggan info``."""

from __future__ import annotations

from typing import Any

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, json_option, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name


@click.command("info", cls=Command)
@click.argument("name", required=False)
@sprite_option
@json_option
@pass_settings
def command(settings: Settings, name: str | None, as_json: bool) -> None:
    """Show everything about the sprite NAME.

    \b
    Example:
      spriggan info dev
    """
    wanted = sprite_name(settings, name)
    with Api(find(settings)) as api:
        sprite = api.get(f"/v1/sprites/{segment(wanted)}")
    if as_json:
        output.as_json(sprite)
    else:
        output.facts(_facts(sprite))


def _facts(sprite: dict[str, Any]) -> list[tuple[str, object]]:
    config = sprite.get("config") or {}
    return [
        ("name", sprite["name"]),
        ("id", sprite.get("id")),
        ("status", sprite.get("status")),
        ("awake because", ", ".join(sprite.get("awake_because") or [])),
        ("last error", sprite.get("last_error")),
        ("box", sprite.get("box")),
        ("image", sprite.get("image")),
        ("memory", f"{config['ram_mb']} MiB" if config.get("ram_mb") else None),
        ("cpus", config.get("cpu_limit") or "all"),
        ("disk", f"{config['storage_gb']} GB" if config.get("storage_gb") else None),
        ("labels", ", ".join(sprite.get("labels") or [])),
        ("environment", " ".join(f"{k}={v}" for k, v in (sprite.get("environment") or {}).items())),
        ("url", sprite.get("url")),
        ("created", sprite.get("created_at")),
        ("last running", sprite.get("last_running_at")),
    ]
