"""``spriggan image``: works on the data directory itself, with or without a server."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import click

from spriggan.cli import output
from spriggan.cli.command import Group, Settings, json_option, pass_settings, require_root
from spriggan.engine import rows
from spriggan.engine.store import Store, sqlite_url
from spriggan.image import DEFAULT_NAME, Image, ImageStore
from spriggan.image.importing import Limits, Request
from spriggan.image.progress import Step


@click.group("image", cls=Group)
def command() -> None:
    """Build, import, list, show and remove images: what the disks of new sprites start from.

    \b
    Example:
      sudo spriggan image build
    """


@command.command("build")
@click.option("--name", default=DEFAULT_NAME, show_default=True, metavar="NAME", help="What to call it.")
@click.option("--force", is_flag=True, help="Build all layers again, even if nothing has changed.")
@click.option("--wait", is_flag=True, help="If another command is at work on images, wait until it is done.")
@pass_settings
def build(settings: Settings, name: str, force: bool, wait: bool) -> None:
    """Build an image from the packages of this host's distribution.

    \b
    Example:
      sudo spriggan image build
    """
    _say(ImageStore(settings.data).build(_show, name=name, force=force, wait=wait))


@command.command("import")
@click.argument("name")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--ref", "reference", metavar="NAME", help="Which image, if the archive holds several.")
@click.option(
    "--user", default="", metavar="USER", help="Who commands run as (default: whom the image says)."
)
@click.option("--replace", is_flag=True, help="Put it in place of another image of that name.")
@click.option(
    "--max-entries",
    type=click.IntRange(min=1),
    default=Limits.entries,
    show_default=True,
    metavar="N",
    help="Most files and directories in it.",
)
@click.option(
    "--max-size",
    type=click.IntRange(min=1),
    default=Limits.bytes // 10**9,
    show_default=True,
    metavar="GB",
    help="Largest size, uncompressed.",
)
@click.option(
    "--max-ratio",
    type=click.IntRange(min=1),
    default=Limits.ratio,
    show_default=True,
    metavar="N",
    help="Most bytes that one compressed byte may become.",
)
@pass_settings
def import_(
    settings: Settings,
    *,
    name: str,
    source: Path,
    reference: str | None,
    user: str,
    replace: bool,
    max_entries: int,
    max_size: int,
    max_ratio: int,
) -> None:
    """Make the image NAME of what is in SOURCE: a root file system, or an image for Docker or podman.

    SOURCE is a tar of a root file system, an archive of 'docker save' or 'podman save', or an OCI
    layout as a directory or tar; '-' reads an archive from standard input. It may be compressed with
    gzip, bzip2, xz or zstd.

    \b
    Example:
      docker save alpine | sudo spriggan image import alpine -
      sudo spriggan image import minimal rootfs.tar.xz
      spriggan create dev --image alpine
    """
    limits = Limits(entries=max_entries, bytes=max_size * 10**9, ratio=max_ratio)
    request = Request(source, name, reference=reference, user=user, limits=limits)
    _say(ImageStore(settings.data).import_image(request, _show, replace=replace))


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
            ("source", image.source),
            ("created", image.created),
            ("user", image.user),
            ("shell", image.shell),
            ("directory", image.working_dir),
            ("entrypoint", shlex.join(image.entrypoint)),
            ("command", shlex.join(image.command)),
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


def _say(image: Image) -> None:
    layers = f"{len(image.layers)} layer{'s' * (len(image.layers) != 1)}"
    click.echo(f"{image.name}: {layers}, {output.size(image.bytes)}")


def _show(step: Step) -> None:
    click.echo(output.printable(step), err=True)


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
