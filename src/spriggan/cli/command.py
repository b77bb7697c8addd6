"""What commands have in common: settings, and options that may stand anywhere."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from spriggan.errors import MissingCapability

DEFAULT_DATA = Path("/var/lib/spriggan")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Settings:
    """What was said for the whole run, before or after the name of the command."""

    given_data: Path | None = None
    org: str | None = None
    sprite: str | None = None

    @property
    def data(self) -> Path:
        """The data directory that was named, else the usual one."""
        return self.given_data or DEFAULT_DATA


class Number(click.FloatRange):
    """A number in a range; neither "nan" nor "inf", which Python takes for numbers, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number that can be counted to.", param, ctx)
        return number


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    # Options of the group come first and would be overwritten by an absent one of the command.
    if value is not None and param.name is not None:
        setattr(ctx.ensure_object(Settings), param.name, value)


data_option = click.option(
    "--data",
    "given_data",
    type=click.Path(path_type=Path, file_okay=False, readable=False),  # who may not is told so later
    metavar="DIR",
    expose_value=False,
    callback=_remember,
    help=f"Data directory of the server (default: {DEFAULT_DATA}).",
)

org_option = click.option(
    "-o",
    "--org",
    metavar="NAME",
    expose_value=False,
    callback=_remember,
    help="The server, of those of 'spriggan login' (default: the one logged in to last).",
)

sprite_option = click.option(
    "-s",
    "--sprite",
    metavar="NAME",
    expose_value=False,
    callback=_remember,
    help="The sprite (default: the one chosen with 'spriggan use').",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

pass_settings = click.make_pass_decorator(Settings, ensure=True)


class Command(click.Command):
    """A command that also takes ``--data`` and ``--org``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        data_option(self)
        org_option(self)


class Group(click.Group):
    """A noun with its verbs."""

    command_class = Command


def require_root(what: str) -> None:
    """Raise unless this is root, which alone may mount, make cgroups and network namespaces."""
    if os.geteuid() != 0:
        raise MissingCapability(f"{what} needs root", hint="run it with sudo")
