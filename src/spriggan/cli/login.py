"""``spriggan login``."""

from __future__ import annotations

import os
import sys

import click

from spriggan.cli.api import Api
from spriggan.cli.command import Command
from spriggan.cli.endpoint import Endpoint, checked_token, checked_url
from spriggan.cli.servers import Server, Servers
from spriggan.errors import Broken

MAX_TOKEN = 4096


@click.command("login", cls=Command)
@click.argument("url", metavar="API-URL", envvar="SPRITES_API_URL")
def command(url: str) -> None:
    """Remember the server at API-URL and a token for it, and use it from now on.

    The token is asked for, and not shown; without a terminal it is read from standard input. 'spriggan
    token create' on the server's machine makes one. It is kept in ~/.config/spriggan/servers.json, which
    only you can read.

    \b
    Example:
      spriggan login https://sprites.example.org
      ssh host spriggan token create laptop | spriggan login https://sprites.example.org
    """
    log_in(checked_url(url, "API-URL"), _ask())


def log_in(url: str, token: str) -> None:
    """Try ``token`` at ``url``, and remember both if it is good there."""
    endpoint = Endpoint(url, checked_token(token, "the token"))
    with Api(endpoint) as api:
        answer = api.get("/v1/organization")
    try:
        organization = str(answer["organization"]["slug"])
    except (TypeError, KeyError) as error:
        raise Broken(
            f"{url} answers, but not as a Spriggan server", hint="give the URL without a path"
        ) from error
    Servers.load().with_server(Server(url, token, organization)).save()
    click.echo(f"Logged in to {url} (organization {organization})")
    if url.startswith("http:") and not endpoint.is_local:
        click.echo("  hint: this URL is not encrypted, and whoever can listen has the token", err=True)
    if os.environ.get("SPRITES_API_URL", "").rstrip("/") not in ("", url):
        click.echo("  hint: SPRITES_API_URL names another server and goes first", err=True)


def _ask() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True)).strip()
    return sys.stdin.read(MAX_TOKEN).strip()
