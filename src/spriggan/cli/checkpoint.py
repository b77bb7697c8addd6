"""``spriggan checkpoint``."""

from __future__ import annotations

import re
from typing import Any

import click

from spriggan.cli import output
from spriggan.cli.api import Api, show_progress
from spriggan.cli.command import Group, Settings, json_option, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name
from spriggan.errors import Broken


class _Verbs(Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "delete" if cmd_name == "rm" else cmd_name)


@click.group("checkpoint", cls=_Verbs)
def command() -> None:
    """Create, list, restore and delete checkpoints of a sprite.

    \b
    Example:
      spriggan checkpoint create -s dev --comment "before the upgrade"
      spriggan checkpoint restore -s dev v1
    """


@command.command("create")
@sprite_option
@click.option("--comment", default="", metavar="TEXT", help="A word for later.")
@json_option
@pass_settings
def create(settings: Settings, comment: str, as_json: bool) -> None:
    """Keep the disk as it is now, while the sprite runs.

    The progress goes to standard error, the id of the checkpoint to standard output.

    \b
    Example:
      spriggan checkpoint create -s dev --comment "before the upgrade"
    """
    base = _base(settings)
    with Api(find(settings)) as api:
        last = show_progress(api.stream(f"{base}/checkpoint", {"comment": comment} if comment else {}))
        created = re.search(r"Checkpoint (\S+) created", last)
        if created is None:
            raise Broken(
                "the server made a checkpoint without saying its id",
                hint="'spriggan checkpoint list' shows it",
            )
        if as_json:
            output.as_json(api.get(f"{base}/checkpoints/{segment(created[1])}"))
        else:
            click.echo(created[1])


@command.command("list")
@sprite_option
@click.option("--history", metavar="ID", help="Only the checkpoint ID and what came from it.")
@click.option("--include-auto", is_flag=True, help="Also those that were made before a restore.")
@json_option
@pass_settings
def list_(settings: Settings, history: str | None, include_auto: bool, as_json: bool) -> None:
    """List checkpoints. The current one is marked with a star.

    \b
    Example:
      spriggan checkpoint list -s dev
    """
    params = {"includeAuto": "true"} if include_auto else {}
    if history:
        params["history"] = history
    with Api(find(settings)) as api:
        found = api.get(f"{_base(settings)}/checkpoints", params)
    # The live state is listed by the API, too, but is no checkpoint that one could restore.
    checkpoints = [checkpoint for checkpoint in found if checkpoint["id"] != "Current"]
    if as_json:
        output.as_json(checkpoints)
        return
    output.table(
        ("", "ID", "AGE", "SIZE", "FROM", "COMMENT"),
        (
            (
                "*" if checkpoint.get("is_current") else "",
                checkpoint["id"],
                output.age(checkpoint.get("create_time")),
                output.size(checkpoint.get("size")),
                checkpoint.get("source_id") or "",
                checkpoint.get("comment") or "",
            )
            for checkpoint in checkpoints
        ),
    )


@command.command("info")
@click.argument("id_", metavar="ID")
@sprite_option
@json_option
@pass_settings
def info(settings: Settings, id_: str, as_json: bool) -> None:
    """Show the checkpoint ID.

    \b
    Example:
      spriggan checkpoint info -s dev v1
    """
    with Api(find(settings)) as api:
        checkpoint: dict[str, Any] = api.get(f"{_base(settings)}/checkpoints/{segment(id_)}")
    if as_json:
        output.as_json(checkpoint)
        return
    output.facts(
        [
            ("id", checkpoint["id"]),
            ("created", checkpoint.get("create_time")),
            ("comment", checkpoint.get("comment")),
            ("from", checkpoint.get("source_id")),
            ("automatic", "yes" if checkpoint.get("is_auto") else "no"),
            ("current", "yes" if checkpoint.get("is_current") else "no"),
            ("size", output.size(checkpoint.get("size"))),
        ]
    )


@command.command("restore")
@click.argument("id_", metavar="ID")
@sprite_option
@pass_settings
def restore(settings: Settings, id_: str) -> None:
    """Put the disk back to the checkpoint ID; what is now becomes an automatic checkpoint.

    Everything that runs in the sprite ends.

    \b
    Example:
      spriggan checkpoint restore -s dev v1
    """
    restore_checkpoint(settings, id_)


def restore_checkpoint(settings: Settings, id_: str) -> None:
    """Restore, and show how it goes."""
    with Api(find(settings)) as api:
        path = f"{_base(settings)}/checkpoints/{segment(id_)}/restore"
        last = show_progress(api.stream(path))
    click.echo(output.printable(last or f"Restored {id_}"))


@command.command("delete")
@click.argument("id_", metavar="ID")
@sprite_option
@pass_settings
def delete(settings: Settings, id_: str) -> None:
    """Delete the checkpoint ID, for good. The current one cannot be deleted. Also: rm.

    \b
    Example:
      spriggan checkpoint delete -s dev v1
    """
    with Api(find(settings)) as api:
        api.delete(f"{_base(settings)}/checkpoints/{segment(id_)}")
    click.echo(f"Deleted {id_}")


def _base(settings: Settings) -> str:
    return f"/v1/sprites/{segment(sprite_name(settings))}"
