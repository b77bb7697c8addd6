"""What a command is to the pilot, and what the pilot needs from the container that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from spriggan.wire.spec import SpriteSpec

PATH = "/.sprite/bin:/home/sprite/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM = "xterm-256color"


@dataclass(frozen=True)
class Process:
    """A command to start. ``user`` None means the sprite's own user."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    user: str | None = None


class ExecError(Exception):
    """The command did not start. ``exit_code`` is what a shell would have reported: 126, 127 or 1."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Container(Protocol):
    """The sprite's world, in which commands are started."""

    init_pid: int  # on the host; 0 while the container is down

    async def spawn(self, process: Process, stdin: int, stdout: int, stderr: int) -> int:
        """Start ``process`` on these descriptors, which stay the caller's; return its pid on the host.

        The process is a child of the pilot, who must wait for it. Raises ``ExecError``.
        """

    async def spawn_tty(self, process: Process, rows: int, cols: int) -> tuple[int, int]:
        """Start ``process`` on a new terminal; return its pid and the terminal's master descriptor."""


def home(spec: SpriteSpec) -> str:
    """The home directory of the sprite's user."""
    return "/root" if spec.user.name == "root" else f"/home/{spec.user.name}"


def default_environment(spec: SpriteSpec, *, tty: bool) -> dict[str, str]:
    """What every command finds, under what the sprite and the request set."""
    environment = {
        "PATH": PATH,
        "HOME": home(spec),
        "USER": spec.user.name,
        "LOGNAME": spec.user.name,
        "SHELL": spec.user.shell,
        "LANG": "C.UTF-8",
    }
    if tty:
        environment["TERM"] = TERM
    return environment | spec.environment
