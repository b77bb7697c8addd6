"""A sprite that the tests of one module share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import serving

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared(server: serving.Server) -> Iterator[Any]:
    """For tests that leave nothing behind that another one would notice."""
    made = server.client().create_sprite(f"shared{next(_numbers)}")
    yield made
    made.delete()
