"""A request to run a command, read from a query string."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from spriggan.pilot.parameters import Parameters
from spriggan.pilot.problems import Problem, invalid
from spriggan.pilot.process import Process, default_environment, home
from spriggan.wire.messages import MAX_TERMINAL
from spriggan.wire.spec import SpriteSpec

DEFAULT_COMMAND = "bash"
ROWS, COLS = 24, 80
RUN_ON_S = 10.0  # how long a command without a terminal outlives its client
FOREVER = 0.0
MAX_PATH = 4095
MAX_ARGUMENT = 128 * 1024 - 1  # MAX_ARG_STRLEN of execve(2), less the final NUL


@dataclass(frozen=True)
class Command:
    """What to run, and how long without anybody listening (``FOREVER``: no limit)."""

    process: Process
    tty: bool
    rows: int
    cols: int
    stdin: bool
    run_on: float


def parse_command(parameters: Parameters, spec: SpriteSpec, *, stdin: bool = False) -> Command:
    """Read and check all of a command. ``stdin`` is what holds when the query does not say.

    Raises ``Problem`` (400) for what cannot be right.
    """
    tty = parameters.flag("tty")
    detachable = parameters.flag("detachable")
    return Command(
        process=Process(
            argv=_argv(parameters), env=_environment(parameters, spec, tty=tty), cwd=_directory(parameters, spec)
        ),
        tty=tty,
        rows=parameters.number("rows", ROWS, least=1, most=MAX_TERMINAL),
        cols=parameters.number("cols", COLS, least=1, most=MAX_TERMINAL),
        stdin=parameters.flag("stdin", tty or stdin),
        run_on=parameters.duration("max_run_after_disconnect", FOREVER if tty or detachable else RUN_ON_S),
    )


def _argv(parameters: Parameters) -> list[str]:
    """The argument vector. ``path`` names the program, and so takes the place of ``argv[0]``:
    the container runtime starts what ``argv[0]`` says and has no other way to be told."""
    argv = [_plain(value, "cmd", MAX_ARGUMENT) for value in parameters.all("cmd")]
    path = _plain(parameters.text("path"), "path", MAX_PATH)
    if path:
        argv[:1] = [path]
    if not argv:
        return [DEFAULT_COMMAND]
    if not argv[0]:
        raise invalid("the command's name is empty", hint="cmd=ls&cmd=-l runs `ls -l`")
    return argv


def _environment(parameters: Parameters, spec: SpriteSpec, *, tty: bool) -> dict[str, str]:
    environment = default_environment(spec, tty=tty)
    for setting in parameters.all("env"):
        name, equals, value = _plain(setting, "env", MAX_ARGUMENT).partition("=")
        if not equals or not name:
            raise invalid(f"env must be NAME=VALUE, not {setting[:64]!r}", hint="for example env=DEBUG%3D1")
        environment[name] = value
    return environment


def _directory(parameters: Parameters, spec: SpriteSpec) -> str:
    return posixpath.join(home(spec), _plain(parameters.text("dir"), "dir", MAX_PATH))


def _plain(text: str, name: str, limit: int) -> str:
    """``text`` if a program can be given it: UTF-8, no NUL byte, not too long."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise invalid(f"{name} is not valid UTF-8") from error
    if "\0" in text:
        raise invalid(f"{name} contains a NUL byte")
    if size > limit:
        raise Problem(400, "too_long", f"{name} is longer than {limit} bytes", hint="put it into a file")
    return text
