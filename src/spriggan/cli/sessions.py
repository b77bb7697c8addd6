"""``spriggan sessions``."""

from __future__ import annotations

import click

from spriggan.cli import output
from spriggan.cli.api import Api, show_progress
from spriggan.cli.command import Group, Number, Settings, json_option, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.remote import Attachment, run
from spriggan.cli.selection import sprite_name


@click.group("sessions", cls=Group)
def command() -> None:
    """List, attach to and kill the sessions of a sprite: the commands that run in it.

    \b
    Example:
      spriggan sessions list -s dev
    """


@command.command("list")
@sprite_option
@json_option
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """List sessions.

    \b
    Example:
      spriggan sessions list -s dev
    """
    with Api(find(settings)) as api:
        sessions = api.get(_base(settings))["sessions"]
    if as_json:
        output.as_json(sessions)
        return
    output.table(
        ("ID", "COMMAND", "TTY", "ATTACHED", "AGE", "DIRECTORY"),
        (
            (
                session["id"],
                session.get("command", ""),
                "yes" if session.get("tty") else "no",
                "yes" if session.get("is_active") else "no",
                output.age(session.get("created")),
                session.get("workdir", ""),
            )
            for session in sessions
        ),
    )


@command.command("attach")
@click.argument("id_", metavar="ID")
@sprite_option
@click.option("--no-stdin", is_flag=True, help="Only watch.")
@pass_settings
def attach(settings: Settings, id_: str, no_stdin: bool) -> None:
    """Show all that the session ID has said, and join it. Ctrl+\\ detaches.

    \b
    Example:
      spriggan sessions attach -s dev 12
    """
    attach_session(settings, id_, stdin=not no_stdin)


def attach_session(settings: Settings, id_: str, *, stdin: bool) -> None:
    """Join a session and end this process with its exit code."""
    run(find(settings), Attachment(f"{_base(settings)}/{segment(id_)}", stdin=stdin))


@command.command("kill")
@click.argument("id_", metavar="ID")
@sprite_option
@click.option("--signal", "signal_", default="TERM", show_default=True, metavar="NAME", help="Sent first.")
@click.option(
    "--timeout",
    type=Number(0, 3600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Then KILL follows.",
)
@pass_settings
def kill(settings: Settings, id_: str, signal_: str, timeout: float) -> None:
    """End the session ID.

    \b
    Example:
      spriggan sessions kill -s dev 12
      spriggan sessions kill -s dev 12 --signal HUP --timeout 60
    """
    with Api(find(settings)) as api:
        path = f"{_base(settings)}/{segment(id_)}/kill"
        show_progress(api.stream(path, signal=signal_, timeout=f"{timeout:g}s"))
    click.echo(f"Session {id_} has ended")


def _base(settings: Settings) -> str:
    return f"/v1/sprites/{segment(sprite_name(settings))}/exec"
