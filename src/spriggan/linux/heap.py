"""The memory that a process has for its objects."""

from __future__ import annotations

import contextlib
import gc

from spriggan.linux import libc


def grow() -> None:
    """Collect no garbage until ``settle``, for the time in which everything is loaded that is worked with later.

    There is none in what is loaded, and looking through all of it again and again is a tenth of the work.
    """
    gc.disable()


def settle() -> None:
    """Give back what starting has left over, and keep what is there now out of every later collection.

    For a process that has loaded all that it works with, which no collection would ever find to be garbage. A
    collection takes time for every object it looks at, and it writes to them: in a fork that copies all pages.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    with contextlib.suppress(AttributeError):  # only the GNU C library keeps what it could give back
        libc.call("malloc_trim", 0, what="malloc_trim")
