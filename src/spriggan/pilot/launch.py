"""Starts a command with pipes or a terminal, and returns what the pilot keeps of them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass

from spriggan.pilot.command import Command
from spriggan.pilot.process import Container
from spriggan.wire.frames import Stream


@dataclass(frozen=True)
class Launched:
    """A running command. The descriptors do not block and belong to the receiver."""

    pid: int
    input: int | None
    outputs: list[tuple[int, Stream]]
    terminal: int | None = None  # the same as the only output


async def launch(container: Container, command: Command) -> Launched:
    """Start ``command``. Raises ``ExecError`` or ``OSError``; then nothing is left open."""
    if command.tty:
        return await _with_terminal(container, command)
    return await _with_pipes(container, command)


async def _with_terminal(container: Container, command: Command) -> Launched:
    pid, master = await container.spawn_tty(command.process, command.rows, command.cols)
    os.set_blocking(master, False)
    # Reading and writing end at different times, so each gets a descriptor of its own.
    return Launched(pid, os.dup(master), [(master, Stream.STDOUT)], terminal=master)


async def _with_pipes(container: Container, command: Command) -> Launched:
    with ExitStack() as theirs, ExitStack() as on_failure:
        ends: list[tuple[int, int]] = []
        for _ in range(3):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            # Root outside the sprite made the pipe, and /dev/stdout must open for users inside.
            os.fchmod(reader, 0o666)
            ends.append((reader, writer))
            on_failure.callback(os.close, reader)
            on_failure.callback(os.close, writer)
        (stdin, to_stdin), (from_stdout, stdout), (from_stderr, stderr) = ends
        pid = await container.spawn(command.process, stdin, stdout, stderr)
        on_failure.pop_all()
        for fd in (stdin, stdout, stderr):
            theirs.callback(os.close, fd)
        if not command.stdin:
            theirs.callback(os.close, to_stdin)
        for fd in (to_stdin, from_stdout, from_stderr):
            os.set_blocking(fd, False)
    outputs = [(from_stdout, Stream.STDOUT), (from_stderr, Stream.STDERR)]
    return Launched(pid, to_stdin if command.stdin else None, outputs)
