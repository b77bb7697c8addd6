"""Small scripts that become the program that was asked for, once that can start."""

from __future__ import annotations

from collections.abc import Sequence

_WAIT_FOR_SIZE = 'while [ "$(stty size 2>/dev/null)" = "0 0" ]; do sleep 0.01; done; exec "$@"'
_RENAME = 'exec -a "$0" -- "$@"'

_WAITING = ["/bin/sh", "-c", _WAIT_FOR_SIZE]
# Privileged mode, for that reads no file that a variable names.
_RENAMING = ["/bin/bash", "-pc", _RENAME]


def waiting(arguments: list[str]) -> list[str]:
    """``arguments`` for a program that starts when its terminal has a size: it may ask at once."""
    return [*_WAITING, "sh", *arguments]


def renaming(name: str, program: str, arguments: list[str]) -> list[str]:
    """The command line that runs ``program`` and tells it that it is called ``name``."""
    return [*_RENAMING, name, program, *arguments]


def is_starter(command_line: Sequence[str]) -> bool:
    """Whether a process is still one of these, and not yet what was asked for."""
    return list(command_line[:3]) in (_WAITING, _RENAMING)
