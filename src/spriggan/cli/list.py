"""``spriggan list``."""

from __future__ import annotations

import json
from typing import Any

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, json_option, pass_settings
from spriggan.cli.endpoint import find

PAGE = 50  # the most that a server gives at once


@click.command("list", cls=Command)
@click.option("--prefix", default="", metavar="TEXT", help="Only sprites whose names start so.")
@click.option("-w", "--watch", is_flag=True, help="Go on, with a line for every change, until Ctrl-C.")
@json_option
@pass_settings
def command(settings: Settings, prefix: str, watch: bool, as_json: bool) -> None:
    """List sprites. Also: ls.

    \b
    Example:
      spriggan list --prefix dev
      spriggan list --watch
    """
    if watch:
        _watch(settings, prefix, as_json=as_json)
        return
    with Api(find(settings)) as api:
        sprites = all_sprites(api, prefix)
    if as_json:
        output.as_json(sprites)
        return
    output.table(
        ("NAME", "STATUS", "BOX", "IMAGE", "AGE", "LABELS"),
        (
            (
                sprite["name"],
                sprite.get("status", ""),
                sprite.get("box", ""),
                sprite.get("image", ""),
                output.age(sprite.get("created_at")),
                ", ".join(sprite.get("labels") or []),
            )
            for sprite in sprites
        ),
    )


def _watch(settings: Settings, prefix: str, *, as_json: bool) -> None:
    """Every sprite, and then each one that changes; with ``as_json`` one object a line."""
    with Api(find(settings)) as api:
        for change in api.watch("/v1/sprites", **({"prefix": prefix} if prefix else {})):
            if change.get("type") == "heartbeat":
                continue
            if as_json:
                click.echo(json.dumps(change))
            else:
                line = f"{change.get('timestamp', '')[:19]}  {change['name']}  {change.get('status', '')}"
                click.echo(output.printable(line))


def all_sprites(api: Api, prefix: str = "") -> list[dict[str, Any]]:
    """Every sprite whose name starts with ``prefix``, page by page."""
    sprites: list[dict[str, Any]] = []
    token = ""
    while True:
        params = {"max_results": str(PAGE)}
        if prefix:
            params["prefix"] = prefix
        if token:
            params["continuation_token"] = token
        page = api.get("/v1/sprites", params)
        sprites += page["sprites"]
        token = page.get("next_continuation_token") or ""
        if not page.get("has_more") or not token:
            return sprites
