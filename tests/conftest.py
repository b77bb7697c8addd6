"""Fixtures that need a running server."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import serving

# How long an example takes says something about the machine, not about what is tested.
settings.register_profile("spriggan", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spriggan")

# Who is told to end, and not by a keyboard, leaves nothing on the machine either.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# A job in the background of a shell has this one ignored. It still is, but not in the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, lambda *_: None)

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[serving.Server]:
    """One running server for all tests that do not disturb it."""
    with serving.server() as found:
        found.start()
        yield found


@pytest.fixture
def new_name() -> Callable[[], str]:
    return lambda: f"t{next(_numbers)}"


@pytest.fixture
def sprite(server: serving.Server, new_name: Callable[[], str]) -> Iterator[Any]:
    """A sprite of its own, as the official client has it."""
    client = server.client()
    made = client.create_sprite(new_name())
    yield made
    made.delete()
