"""A hook for the crash tests: die exactly between two steps of a change.

With ``SPRIGGAN_FAULT="create:disk"`` in the environment the process kills itself with
SIGKILL when it passes that point, so that a test can look at what the next start makes
of it. Unset, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

_POINT = os.environ.get("SPRIGGAN_FAULT", "")


def reached(point: str) -> None:
    """The step named ``point`` (``"<operation>:<step>"``) is done and the next has not begun."""
    if point == _POINT:
        os.kill(os.getpid(), signal.SIGKILL)
