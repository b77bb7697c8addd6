"""What the apps need of a container: to run a process in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Process:
    """A command to run inside the sprite."""

    argv: list[str]
    env: dict[str, str]
    cwd: str  # empty: where the commands of this sprite start
    user: str | None = None  # a name or number; None: the sprite's own user
    program: str = ""  # what to execute where that is not ``argv[0]``, the name it is told
    any_shell: bool = False  # another shell will do, if there is none of this name


class ExecError(Exception):
    """The command could not be started; ``exit_code`` is what a shell would report (126, 127 or 1)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Container(Protocol):
    """A sprite's inner container."""

    init_pid: int
    privileges: dict[str, Any]  # the policy for commands that are started

    @property
    def own_disk(self) -> Path:
        """The sprite's disk as it is mounted for the pilot alone, with the ids that are on it."""
        ...

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self, grace: float) -> None: ...

    def publish_policy(self, rules: list[dict[str, Any]]) -> None: ...

    def shown_checkpoints(self) -> list[str]: ...

    def show_checkpoint(self, name: str) -> None: ...

    def drop_checkpoint(self, name: str, *, unused: bool) -> bool: ...

    def complete(self, process: Process) -> Process:
        """Fill in what depends on the user's account and on what is in the sprite.

        Raises ``ExecError`` if there is no such user.
        """
        ...

    async def spawn(self, process: Process, stdin: int, stdout: int, stderr: int) -> int: ...

    async def spawn_tty(self, process: Process, rows: int, cols: int) -> tuple[int, int]: ...
