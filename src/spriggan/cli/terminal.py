"""The terminal of whoever runs the command: raw while a remote one is shown in it, then as before."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """Every key goes to the remote side uninterpreted, until the block is left, however it is left."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        # Output that was written is still shown; keys typed for the remote side are not lost either.
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def dimensions() -> tuple[int, int]:
    """Rows and columns of the terminal, or of a common one where there is none."""
    for fd in (1, 0, 2):
        try:
            columns, rows = os.get_terminal_size(fd)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return 24, 80
