"""Points between the steps of a change, where tests end a process or let it stand still.

With ``SPRIGGAN_FAULT="create:disk"`` in the environment the process that passes that point kills
itself with SIGKILL, so that a test can look at what the next start makes of it. With
``SPRIGGAN_FAULT=@FILE`` the point is what FILE says when one is passed, so that a running server can
be told; it is followed by ``stop`` for SIGSTOP, which lets a test end another process first. The
first process at the point renames FILE to ``FILE.<its pid>``: each fault comes about once.

Processes of every kind have points: the server, the zygote and pilots, which inherit the variable. Unset, a
point costs one comparison. This module imports nothing of the package.
"""

from __future__ import annotations

import os
import signal

_WANTED = os.environ.get("SPRIGGAN_FAULT", "")


def point(name: str) -> None:
    """The step ``name`` (``"<what>:<step>"``) is done and the next has not begun."""
    if _WANTED and (number := _due(name)):
        signal.raise_signal(number)  # to this very thread, which takes no further step


def _due(name: str) -> int:
    """The signal to end or stop with at this point, or 0."""
    if not _WANTED.startswith("@"):
        return signal.SIGKILL if name == _WANTED else 0
    file = _WANTED[1:]
    try:
        with open(file) as wanted:
            words = wanted.read().split()
        if words[:1] != [name]:
            return 0
        os.rename(file, f"{file}.{os.getpid()}")  # noqa: PTH104
    except FileNotFoundError:
        return 0
    return signal.SIGSTOP if words[1:] == ["stop"] else signal.SIGKILL
