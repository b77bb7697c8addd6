"""``spriggan exec``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from spriggan.cli import terminal
from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.remote import Attachment, run
from spriggan.cli.selection import sprite_name
from spriggan.cli.variables import assignments
from spriggan.errors import InvalidRequest

# What a program needs to know of the terminal that shows it.
TERMINAL_VARIABLES = ("TERM", "COLORTERM", "LANG", "LC_ALL")


@click.command(
    "exec", cls=Command, context_settings={"allow_interspersed_args": False}, options_metavar="[OPTIONS] --"
)
@click.argument("argv", nargs=-1, metavar="COMMAND [ARGUMENT]...")
@sprite_option
@click.option("--tty", "-t", is_flag=True, help="Give the command a terminal.")
@click.option("--dir", "directory", metavar="DIR", help="Where it runs (default: the home directory).")
@click.option("--env", multiple=True, metavar="K=V[,K2=V2]", help="Environment; may be repeated.")
@click.option(
    "--file", "files", multiple=True, metavar="SRC:DST", help="Copy a file into it first; may be repeated."
)
@click.option("--no-port-forward", is_flag=True, help="Do not offer here what listens in the sprite.")
@click.option("--http-post", is_flag=True, help="By one HTTP request, where WebSockets do not get through.")
@click.option("--no-stdin", is_flag=True, help="Give the command no input, and leave ours alone.")
@pass_settings
def command(
    settings: Settings,
    *,
    argv: tuple[str, ...],
    tty: bool,
    directory: str | None,
    env: tuple[str, ...],
    files: tuple[str, ...],
    no_port_forward: bool,
    http_post: bool,
    no_stdin: bool,
) -> None:
    """Run COMMAND in a sprite, with this input and output, and exit with its exit code. Also: x.

    Ctrl-C goes to the command. No shell is between: for pipes and variables give one.

    \b
    Example:
      spriggan exec -s dev -- uname -a
      tar c . | spriggan exec -s dev --dir /tmp -- tar x
      spriggan exec -s dev --env DEBUG=1 -- sh -c 'echo $DEBUG | tr 1 2'
    """
    if not argv:
        raise click.UsageError("no command is given")
    if tty and http_post:
        raise click.UsageError("a terminal needs a WebSocket: give either --tty or --http-post")
    if files:
        _push(settings, files)
    if http_post:
        from spriggan.cli import post  # noqa: PLC0415

        query = _query(argv, directory=directory, env=assignments(env), stdin=not no_stdin)
        path = f"/v1/sprites/{segment(sprite_name(settings))}/exec"
        sys.exit(post.run(find(settings), path, query, stdin=not no_stdin))
    start(
        settings,
        argv,
        tty=tty,
        directory=directory,
        env=assignments(env),
        stdin=not no_stdin,
        forward=not no_port_forward,
    )


def start(
    settings: Settings,
    argv: tuple[str, ...],
    *,
    tty: bool,
    directory: str | None = None,
    env: dict[str, str],
    stdin: bool = True,
    forward: bool = True,
) -> None:
    """Run ``argv`` in the chosen sprite and exit with its exit code."""
    if tty:
        env = {name: os.environ[name] for name in TERMINAL_VARIABLES if name in os.environ} | env
    query = _query(argv, directory=directory, env=env, stdin=stdin)
    query.append(("tty", "true" if tty else "false"))
    if tty:
        rows, columns = terminal.dimensions()
        query += [("rows", str(rows)), ("cols", str(columns))]
    sprite = f"/v1/sprites/{segment(sprite_name(settings))}"
    attachment = Attachment(f"{sprite}/exec", query, tty=tty, stdin=stdin, forward=sprite if forward else "")
    run(find(settings), attachment)


def _query(
    argv: tuple[str, ...], *, directory: str | None, env: dict[str, str], stdin: bool
) -> list[tuple[str, str]]:
    query = [("cmd", argument) for argument in argv]
    query += [("path", argv[0]), ("stdin", "true" if stdin else "false")]
    if directory:
        query.append(("dir", directory))
    return query + [("env", f"{name}={value}") for name, value in env.items()]


def _push(settings: Settings, files: tuple[str, ...]) -> None:
    pairs = [text.partition(":") for text in files]
    for source, _, target in pairs:
        if not source or not target or not Path(source).is_file():
            raise InvalidRequest(
                f"{source}:{target} does not name a file here and a path there",
                hint="for example: --file notes.txt:/home/sprite/notes.txt",
            )
    # Only here: the HTTP library takes longer to load than all the rest of this command.
    from spriggan.cli.api import Api  # noqa: PLC0415
    from spriggan.cli.file import push_file  # noqa: PLC0415

    with Api(find(settings)) as api:
        base = f"/v1/sprites/{segment(sprite_name(settings))}/fs"
        for source, _, target in pairs:
            push_file(api, base, Path(source), target)
