"""``spriggan list``."""

from __future__ import annotations

from typing import Any

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Command, Settings, json_option, pass_settings
from spriggan.cli.endpoint import find

PAGE = 50  # the most that a server gives at once


@click.command("list", cls=Command)
@click.option("--prefix", default="", metavar="TEXT", help="Only sprites whose names start so.")
@json_option
@pass_settings
def command(settings: Settings, prefix: str, as_json: bool) -> None:
    """List sprites. Also: ls.

    \b
    Example:
      spriggan list --prefix dev
    """
    with Api(find(settings.data)) as api:
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


def all_sprites(api: Api, prefix: str = "") -> list[dict[str, Any]]:
    """Every sprite whose name starts with ``prefix``, page by page."""
    sprites: list[dict[str, Any]] = []
    token = ""
    while True:
        params: dict[str, str | int] = {"max_results": PAGE}
        if prefix:
            params["prefix"] = prefix
        if token:
            params["continuation_token"] = token
        page = api.get("/v1/sprites", **params)
        sprites += page["sprites"]
        token = page.get("next_continuation_token") or ""
        if not page.get("has_more") or not token:
            return sprites
