"""``spriggan mcp``."""

from __future__ import annotations

import importlib.util

import click

from spriggan.cli.command import Command, Settings, pass_settings
from spriggan.cli.endpoint import find
from spriggan.errors import MissingCapability


@click.command("mcp", cls=Command)
@click.option("--prefix", default="", metavar="TEXT", help="Only sprites whose names start so.")
@click.option("--read-only", is_flag=True, help="Only tools that change nothing.")
@pass_settings
def command(settings: Settings, prefix: str, read_only: bool) -> None:
    """Give an agent tools for sprites, by the Model Context Protocol on standard input and output.

    An agent's program starts this. It reaches the server as the other commands do.

    \b
    Example:
      spriggan mcp --prefix agent-
    """
    if importlib.util.find_spec("mcp") is None:
        raise MissingCapability("the MCP SDK is not installed", hint="pip install 'spriggan[mcp]'")
    # It costs most of a second, which no other command should pay.
    from spriggan.cli.tools.server import create_server  # noqa: PLC0415

    create_server(find(settings), prefix, read_only=read_only).run("stdio")
