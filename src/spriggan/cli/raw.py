"""``spriggan api``."""

from __future__ import annotations

import os
import shutil

import click

from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.errors import InvalidRequest, MissingCapability


@click.command(
    "api",
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS]",
)
@click.argument("path")
@click.argument("options", nargs=-1, metavar="[-- CURL OPTIONS]")
@sprite_option
@pass_settings
def command(settings: Settings, path: str, options: tuple[str, ...]) -> None:
    """Call the API with curl, which gets the token and all that follows "--".

    With -s NAME, PATH is below that sprite.

    \b
    Example:
      spriggan api /v1/sprites -- -s
      spriggan api -s dev checkpoints
      spriggan api -s dev fs/write?path=/tmp/x -- -T file
    """
    curl = shutil.which("curl")
    if curl is None:
        raise MissingCapability("curl is not installed", hint="apt-get install curl")
    if not path.isprintable() or " " in path:
        raise InvalidRequest("the path has characters that no path has", hint="encode them, as %20")
    base = f"/v1/sprites/{segment(settings.sprite)}" if settings.sprite is not None else ""
    endpoint = find(settings)
    words = [curl, "--globoff", "--config", "-"]
    if endpoint.socket:
        words += ["--unix-socket", str(endpoint.socket)]
    words += [*(word for word in options if word != "--"), f"{endpoint.url}{base}/{path.lstrip('/')}"]
    # On the command line everybody could read the token in the list of processes.
    reader, writer = os.pipe()
    lines = [f'header = "{name}: {value}"\n' for name, value in endpoint.headers.items()]
    os.write(writer, "".join(lines).encode())
    os.close(writer)
    os.set_inheritable(reader, True)
    words[words.index("-")] = f"/dev/fd/{reader}"
    os.execv(curl, words)  # noqa: S606 - no shell is wanted
