"""The ``spriggan`` command: which commands exist, and how errors reach a person.

A command's module is imported when it is run, not before: the whole of them costs
many times what ``spriggan version`` needs.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import click

from spriggan.cli.command import Settings, data_option, org_option, sprite_option
from spriggan.cli.output import printable
from spriggan.errors import SprigganError

# Command to (module below spriggan.cli, what it does), in the order of the help page.
COMMANDS = {
    "create": ("create", "Make a sprite."),
    "list": ("list", "List sprites."),
    "info": ("info", "Show everything about one sprite."),
    "use": ("use", "Remember a sprite for this directory."),
    "exec": ("exec", "Run a command in a sprite."),
    "console": ("console", "Open a login shell in a sprite."),
    "sessions": ("sessions", "List, attach to and kill sessions."),
    "checkpoint": ("checkpoint", "Create, list, restore and delete checkpoints."),
    "fork": ("fork", "Make a new sprite from a sprite or a checkpoint."),
    "restore": ("restore", "Put a sprite's disk back to a checkpoint."),
    "attach": ("attach", "Join a session."),
    "proxy": ("proxy", "Reach ports of a sprite at ports of this machine."),
    "file": ("file", "Copy files into a sprite and out of it."),
    "check": ("check", "Say whether a sprite is well."),
    "restart": ("restart", "End a sprite's processes and start it again."),
    "upgrade": ("upgrade", "Bring a sprite to the server's version."),
    "url": ("url", "Show a sprite's URL and who may open it."),
    "config": ("config", "Change a sprite's settings."),
    "policy": ("policy", "Show and set what a sprite may reach, do and use."),
    "api": ("raw", "Call the API with curl."),
    "stop": ("stop", "Stop sprites; their disks stay."),
    "destroy": ("destroy", "Delete a sprite, its disk and its checkpoints."),
    "mcp": ("mcp", "Give an agent tools for sprites."),
    "login": ("login", "Remember a server and a token for it."),
    "logout": ("logout", "Forget a server and its token."),
    "auth": ("auth", "Remember a token without being asked for it."),
    "org": ("org", "List the servers that are remembered, and choose one."),
    "serve": ("serve", "Run the server."),
    "down": ("down", "Stop everything of a data directory."),
    "image": ("image", "Build, import, list, show and remove images."),
    "pool": ("pool", "Show and trim the space that sprites use."),
    "token": ("token", "Create, list and revoke tokens."),
    "doctor": ("doctor", "Say what this machine can do for sprites, and what is missing."),
    "setup": ("setup", "Install the system packages that Spriggan needs."),
    "version": ("version", "Print the version."),
}
ALIASES = {"ls": "list", "x": "exec", "c": "console"}


class Spriggan(click.Group):
    """A group that imports a command when it is asked for it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        command: click.Command = importlib.import_module(f"spriggan.cli.{entry[0]}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Spriggan, context_settings={"help_option_names": ["-h", "--help"]})
@data_option
@org_option
@sprite_option
def cli() -> None:
    """Sprites on your own machines: persistent Linux computers that start in a blink.

    The server is that of SPRITES_API_URL and SPRITE_TOKEN, or of 'spriggan login'; else it is found
    by the socket in the data directory.

    \b
    Example:
      spriggan create dev
      spriggan exec -s dev -- uname -a
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run ``arguments``; say errors in a sentence and a hint, and return the exit code."""
    try:
        cli.main(arguments, prog_name="spriggan", standalone_mode=False, obj=Settings())
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read our output went away, and there is nobody to tell. Nothing more may be
        # written, not even by the interpreter when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message, hint, code = _explain(error)
        click.echo(f"spriggan: {printable(message)}", err=True)
        if hint:
            click.echo(f"  hint: {printable(hint)}", err=True)
        return code
    return 0


def _explain(error: Exception) -> tuple[str, str, int]:
    """The sentence, the hint and the exit code for an error."""
    if isinstance(error, SprigganError):
        return error.message, error.hint, 1
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "spriggan"
        return error.format_message(), f"'{where} --help' shows how", error.exit_code
    if isinstance(error, click.ClickException):
        return error.format_message(), "", error.exit_code
    if isinstance(error, UnicodeEncodeError):
        # An argument or variable with bytes that are no text, which no name, URL or JSON can carry.
        words = f"{error.object[:80]!r} is not text in UTF-8"
        return words, "names and values are UTF-8; for other bytes use standard input or a file", 1
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str | bytes):
        where = os.fsdecode(error.filename)
        return f"{where}: {error.strerror}", "look at that path, its file system and whose it is", 1
    if os.environ.get("SPRIGGAN_DEBUG"):
        traceback.print_exception(error)
    hint = "this is a defect of Spriggan; SPRIGGAN_DEBUG=1 shows where it happened"
    return f"{type(error).__name__}: {error}", hint, 1
