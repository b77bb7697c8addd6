"""``spriggan org``."""

from __future__ import annotations

from dataclasses import replace

import click

from spriggan.cli import login, logout, output
from spriggan.cli.command import Group, json_option
from spriggan.cli.servers import Servers


@click.group("org", cls=Group)
def command() -> None:
    """List the servers that are remembered, each with its one organization, and choose one.

    \b
    Example:
      spriggan org list
      spriggan org use sprites.example.org
      spriggan list -o sprites.example.org
    """


command.add_command(login.command, "auth")
command.add_command(logout.command, "logout")


@command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the servers that are remembered. The current one is marked with a star.

    \b
    Example:
      spriggan org list
    """
    servers = Servers.load()
    if as_json:
        output.as_json(
            [
                {"url": each.url, "organization": each.organization, "current": each == servers.current}
                for each in servers.known
            ]
        )
        return
    output.table(
        ("", "SERVER", "ORGANIZATION", "URL"),
        (
            ("*" if each == servers.current else "", each.host, each.organization, each.url)
            for each in servers.known
        ),
    )


@command.command("use")
@click.argument("name", metavar="SERVER")
def use(name: str) -> None:
    """Mean SERVER from now on: its URL, its host, or its organization.

    \b
    Example:
      spriggan org use sprites.example.org
    """
    servers = Servers.load()
    chosen = servers.named(name)
    replace(servers, current=chosen).save()
    click.echo(f"Commands now mean the server {chosen.url}")
