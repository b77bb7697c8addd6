"""``spriggan token``."""

from __future__ import annotations

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Group, Settings, json_option, pass_settings
from spriggan.cli.endpoint import find, segment


@click.group("token", cls=Group)
def command() -> None:
    """Create, list and revoke the tokens that clients show to the server.

    \b
    Example:
      spriggan token create laptop
    """


@command.command("create")
@click.argument("label", default="")
@json_option
@pass_settings
def create(settings: Settings, label: str, as_json: bool) -> None:
    """Make a token. It is printed now and cannot be shown again.

    \b
    Example:
      export SPRITE_TOKEN=$(spriggan token create laptop)
    """
    with Api(find(settings)) as api:
        made = api.post("/v1/tokens", {"label": label})
    if as_json:
        output.as_json(made)
    else:
        click.echo(made["token"])


@command.command("list")
@json_option
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """List tokens, without their secrets.

    \b
    Example:
      spriggan token list
    """
    with Api(find(settings)) as api:
        tokens = api.get("/v1/tokens")["tokens"]
    if as_json:
        output.as_json(tokens)
        return
    output.table(
        ("ID", "LABEL", "AGE"),
        ((token["id"], token.get("label") or "", output.age(token.get("created_at"))) for token in tokens),
    )


@command.command("revoke")
@click.argument("id_", metavar="ID")
@pass_settings
def revoke(settings: Settings, id_: str) -> None:
    """Revoke the token ID: it stops working at once.

    \b
    Example:
      spriggan token revoke 4f1c
    """
    with Api(find(settings)) as api:
        api.delete(f"/v1/tokens/{segment(id_)}")
    click.echo(f"Revoked {id_}")
