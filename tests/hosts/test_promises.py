"""The judge of the power cuts: it must see every kind of broken promise."""

from __future__ import annotations

from typing import Any

import pytest
from promises import Promises, Report, Sprite, at, broken


def history(*changes: tuple[Any, ...]) -> list[Report]:
    """Begun and acknowledged one after the other, ten entries of the log each."""
    reports = []
    for number, (what, sprite, facts) in enumerate(changes):
        begin = {"say": "begin", "number": number, "what": what, "sprite": sprite, **facts}
        reports.append(Report(begin, number * 10, 0))
        reports.append(Report({"say": "done", "number": number}, number * 10 + 10, 0))
    return reports


LIFE = history(
    ("create", "a", {}),
    ("write", "a", {"path": "f", "digest": "1"}),
    ("checkpoint", "a", {}),
    ("write", "a", {"path": "f", "digest": "2"}),
    ("fork", "b", {"source": "a"}),
    ("restore", "a", {"id": "v1"}),
    ("delete_checkpoint", "a", {"id": "v1"}),
    ("destroy", "a", {}),
)


def found(**sprites: Any) -> dict[str, Any]:
    return {"sprites": sprites, "forks": {}, "strays": [], "pool": "", "log": ""}


def sprite(files: dict[str, str], *checkpoints: str) -> dict[str, Any]:
    return {"files": files, "checkpoints": list(checkpoints)}


@pytest.mark.parametrize(
    ("cut", "name", "states"),
    [
        (5, "a", [None, Sprite()]),
        (10, "a", [Sprite(), Sprite({"f": "1"})]),  # the write was announced when the create was over
        (19, "a", [Sprite(), Sprite({"f": "1"})]),
        (49, "b", [None, Sprite({"f": "2"})]),
        (50, "b", [Sprite({"f": "2"})]),
        (80, "a", [None]),
    ],
)
def test_what_is_under_way_may_have_happened(cut: int, name: str, states: list[Sprite | None]) -> None:
    assert at(LIFE, cut).of(name) == states


def test_a_restore_brings_the_files_of_the_checkpoint_back() -> None:
    assert at(LIFE, 60).of("a")[0] == Sprite({"f": "1"}, {"v1": {"f": "1"}}, 2)
    assert at(LIFE, 70).of("a")[0] == Sprite({"f": "1"}, {}, 2)


def test_a_change_that_nobody_saw_the_end_of_stays_open_until_the_next() -> None:
    open_end = [*LIFE[:2], Report({"say": "begin", "number": 9, "what": "destroy", "sprite": "a"}, 10, 0)]
    assert at(open_end, 99).of("a") == [Sprite(), None]


@pytest.mark.parametrize(
    "there",
    [
        found(),
        found(a=sprite({"f": "1"}, "v1")),
        found(a=sprite({}, "v1")),
        found(a=sprite({"f": "2"})),
        found(a=sprite({"f": "2"}, "v1", "v2")),
        found(a=sprite({"f": "2"}, "v1"), c=sprite({})),
        {**found(a=sprite({"f": "2"}, "v1")), "forks": {"a v1": {"f": "2"}}},
        {**found(a=sprite({"f": "2"}, "v1")), "strays": ["disks/x"]},
        {**found(a=sprite({"f": "2"}, "v1")), "left": "a mount"},
        {**found(a=sprite({"f": "2"}, "v1")), "pool": "bad"},
        {"error": "it does not start", "log": "", "pool": ""},
    ],
)
def test_each_kind_of_loss_is_seen(there: dict[str, Any]) -> None:
    kept = Promises({"a": [Sprite({"f": "2"}, {"v1": {"f": "1"}}, 2)]})
    assert broken(kept, there)


def test_what_was_kept_is_no_loss() -> None:
    kept = Promises({"a": [Sprite({"f": "2"}, {"v1": {"f": "1"}}, 2)]}, diary=0)
    there = found(a=sprite({"f": "2", "more": "3"}, "v1"))
    assert broken(kept, {**there, "forks": {"a v1": {"f": "1"}}}) == []


def test_the_diary_may_be_longer_and_never_shorter() -> None:
    kept = at([Report({"say": "diary", "number": 4}, 3, 0)], 3)
    diary = {**sprite({}), "diary": 5}
    assert kept.diary == 5
    kept.allowed["diary"] = [Sprite()]
    assert broken(kept, found(diary=diary)) == []
    assert broken(kept, found(diary={**diary, "diary": 4}))
