"""``spriggan image``: works on the data directory itself, with or without a server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from spriggan.cli import output
from spriggan.cli.command import Group, Settings, json_option, pass_settings, require_root
from spriggan.engine import rows
from spriggan.engine.store import Store, sqlite_url
from spriggan.image import DEFAULT_NAME, ImageStore
from spriggan.image.progress import Step


@click.group("image", cls=Group)
def command() -> None:
    """Build, list, show and remove images: what the disks of new sprites start from.

    \b
    Example:
      sudo spriggan image build
    """


@command.command("build")
@click.option("--name", default=DEFAULT_NAME, show_default=True, metavar="NAME", help="What to call it.")
@click.option("--force", is_flag=True, help="Build all layers again, even if nothing has changed.")
@pass_settings
def build(settings: Settings, name: str, force: bool) -> None:
    """Build an image from the packages of this host's distribution.

    \b
    Example:
      sudo spriggan image build
    """
    image = ImageStore(settings.data).build(_show, name=name, force=force)
    click.echo(f"{image.name}: {len(image.layers)} layers, {output.size(image.bytes)}")


@command.command("list")
@json_option
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """List images.

    \b
    Example:
      spriggan image list
    """
    images = ImageStore(settings.data).list()
    if as_json:
        output.as_json([json.loads(image.to_json()) for image in images])
        return
    output.table(
        ("NAME", "FROM", "LAYERS", "SIZE", "AGE"),
        (
            (
                image.name,
                image.distribution,
                len(image.layers),
                output.size(image.bytes),
                output.age(image.created),
            )
            for image in images
        ),
    )


@command.command("show")
@click.argument("name", default=DEFAULT_NAME)
@json_option
@pass_settings
def show(settings: Settings, name: str, as_json: bool) -> None:
    """Show the image NAME and its layers.

    \b
    Example:
      spriggan image show
    """
    image = ImageStore(settings.data).get(name)
    if as_json:
        output.as_json(json.loads(image.to_json()))
        return
    output.facts(
        [
            ("name", image.name),
            ("from", image.distribution),
            ("created", image.created),
            ("user", image.user),
            ("shell", image.shell),
            ("environment", " ".join(f"{name}={value}" for name, value in image.environment.items())),
        ]
    )
    click.echo()
    output.table(
        ("LAYER", "SIZE", "DIGEST"),
        ((layer.stage, output.size(layer.bytes), layer.digest) for layer in image.layers),
    )


@command.command("rm")
@click.argument("name")
@pass_settings
def remove(settings: Settings, name: str) -> None:
    """Remove the image NAME. Layers that a sprite or another image uses stay.

    \b
    Example:
      sudo spriggan image rm sprites
    """
    require_root("removing an image")
    removed = ImageStore(settings.data).remove(name, asyncio.run(_layers_in_use(settings.data)))
    kept = f", {len(removed.kept)} still in use" if removed.kept else ""
    click.echo(f"Removed {name}: {len(removed.deleted)} layers deleted{kept}")


def _show(step: Step) -> None:
    click.echo(str(step), err=True)


async def _layers_in_use(data: Path) -> set[str]:
    """The layers of all sprites, which a sprite needs as long as it lives."""
    database = data / "state.db"
    if not database.exists():
        return set()
    store = Store(sqlite_url(database))
    try:
        await store.open()
        return {digest for sprite in await store.run(rows.sprites) for digest in sprite.layers}
    finally:
        await store.close()
