"""``spriggan policy``."""

from __future__ import annotations

import json
import sys

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Group, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name
from spriggan.errors import InvalidRequest

KINDS = click.Choice(["network", "privileges", "resources"])


@click.group("policy", cls=Group)
def command() -> None:
    """Show and set what a sprite may reach, do and use.

    \b
    Example:
      spriggan policy get -s dev network
      spriggan policy set -s dev network '{"rules": [{"include": "defaults"}]}'
    """


@command.command("get")
@click.argument("kind", type=KINDS)
@sprite_option
@pass_settings
def show(settings: Settings, kind: str) -> None:
    """Print the policy of that KIND as JSON: network, privileges or resources.

    \b
    Example:
      spriggan policy get -s dev network
    """
    with Api(find(settings)) as api:
        output.as_json(api.get(_path(settings, kind)))


@command.command("set")
@click.argument("kind", type=KINDS)
@click.argument("policy", metavar="JSON")
@sprite_option
@pass_settings
def set_(settings: Settings, kind: str, policy: str) -> None:
    """Set the policy of that KIND to JSON, or to what standard input says if JSON is "-".

    \b
    Example:
      spriggan policy set -s dev resources '{"memory": {"limit_mb": 4096}}'
      spriggan policy set -s dev network - < policy.json
    """
    try:
        body = json.loads(sys.stdin.buffer.read() if policy == "-" else policy)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"the policy is not JSON ({error})", hint="'spriggan policy get' shows how one looks"
        ) from error
    with Api(find(settings)) as api:
        api.post(_path(settings, kind), body)
    click.echo(f"Set the {kind} policy of {sprite_name(settings)}")


@command.command("clear")
@click.argument("kind", type=KINDS)
@sprite_option
@pass_settings
def clear(settings: Settings, kind: str) -> None:
    """Lift the policy of that KIND.

    \b
    Example:
      spriggan policy clear -s dev privileges
    """
    with Api(find(settings)) as api:
        if kind == "network":
            api.post(_path(settings, kind), {"rules": []})
        else:
            api.delete(_path(settings, kind))
    click.echo(f"Lifted the {kind} policy of {sprite_name(settings)}")


def _path(settings: Settings, kind: str) -> str:
    return f"/v1/sprites/{segment(sprite_name(settings))}/policy/{kind}"
