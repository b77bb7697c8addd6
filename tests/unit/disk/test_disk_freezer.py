"""What the freezer says, and what is made of it."""

import json

import pytest

from spriggan.disk import snapshot
from spriggan.errors import Broken

GOOD = {"flush_ms": 1.0, "freeze_ms": 2.0, "snapshot_ms": 3.0, "held": True}


def test_a_good_answer():
    assert snapshot.verdict(json.dumps(GOOD).encode()) == snapshot.Pause(1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (json.dumps(GOOD | {"held": False}), "thawed before"),
        (json.dumps({"errno": 28, "error": "No space left on device"}), "No space left"),
        ("", "nonsense"),
        ("[1]", "nonsense"),
        ("7", "nonsense"),
        ("{}", "nonsense"),
    ],
)
def test_everything_else_is_an_error(answer, words):
    with pytest.raises(Broken, match=words):
        snapshot.verdict(answer.encode())
