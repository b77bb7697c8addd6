"""``spriggan console``."""

from __future__ import annotations

import click

from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.exec import start

LOGIN_SHELL = ("/bin/sh", "-c", 'exec "${SHELL:-/bin/bash}" -l')


@click.command("console", cls=Command)
@click.argument("name", required=False)
@sprite_option
@click.option("--no-port-forward", is_flag=True, help="Do not offer here what listens in the sprite.")
@pass_settings
def command(settings: Settings, name: str | None, no_port_forward: bool) -> None:
    """Open a login shell in the sprite NAME. Ctrl+\\ detaches; the shell goes on. Also: c.

    \b
    Example:
      spriggan console dev
    """
    if name is not None:
        settings.sprite = name
    open_console(settings, forward=not no_port_forward)


def open_console(settings: Settings, *, forward: bool = True) -> None:
    """A login shell in the chosen sprite; ends this process with its exit code."""
    start(settings, LOGIN_SHELL, tty=True, env={}, forward=forward)
