"""Whoever takes all there is takes only what is their own: a neighbour and the host go on."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import pytest
from attacks import create, holding, works

import serving


@pytest.fixture(scope="module")
def neighbour(server: serving.Server) -> Iterator[Any]:
    made = server.client().create_sprite("neighbour")
    yield made
    made.delete()


@pytest.fixture(scope="module")
def hog(server: serving.Server) -> Iterator[Any]:
    made = create(server, "hog", ram_mb=512)
    yield made
    made.delete()


# What the kernel counts for each user.


PER_USER = {
    "inotify instances": """
taken = 0
while libc.inotify_init1(0) >= 0:
    taken += 1
full(taken)
""",
    "message queues": """
class Attributes(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_long), ("most", ctypes.c_long), ("size", ctypes.c_long), ("now", ctypes.c_long * 5)]
wanted, taken = Attributes(0, 10, 8192), 0
while libc.mq_open(b"/q%d" % taken, os.O_RDWR | os.O_CREAT, 0o600, ctypes.byref(wanted)) >= 0:
    taken += 1
full(taken)
for number in range(taken):
    libc.mq_unlink(b"/q%d" % number)
""",
    "pending signals": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
taken = 0
while libc.sigqueue(os.getpid(), int(signal.SIGRTMIN), None) == 0:
    taken += 1
full(taken)
""",
}


@pytest.mark.parametrize("what", PER_USER)
def test_what_is_counted_for_each_user(server: serving.Server, hog: Any, neighbour: Any, what: str) -> None:
    with holding(server, hog.name, PER_USER[what]) as taken:
        assert int(taken) > 0
        works(server, neighbour)
        fd = ctypes.CDLL(None).inotify_init1(0)
        assert fd >= 0, "the host's root has none left"
        os.close(fd)
