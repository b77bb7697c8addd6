"""Ids of checkpoints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spriggan.engine import numbering

times = st.integers(min_value=-(2**40), max_value=2**43)
autos = st.lists(st.integers(1, 2**43).map(lambda ms: f"auto-{ms}"), unique=True)


@given(st.integers(1, 10**8), st.integers(1, 10**8))
def test_numbers_name_checkpoints_uniquely(one: int, other: int) -> None:
    assert numbering.is_checkpoint_id(numbering.numbered(one))
    assert (numbering.numbered(one) == numbering.numbered(other)) == (one == other)


@given(times, autos)
def test_an_automatic_id_is_new_and_the_latest(now: int, taken: list[str]) -> None:
    made = numbering.automatic(now, [*taken, "v1"])
    assert numbering.is_checkpoint_id(made)
    assert all((numbering.automatic_time(made) or 0) > (numbering.automatic_time(old) or 0) for old in taken)


@given(autos, st.data())
def test_the_last_three_and_the_current_are_kept(ids: list[str], data: st.DataObject) -> None:
    current = data.draw(st.none() | (st.sampled_from(ids) if ids else st.none()))
    gone = numbering.surplus([*ids, "v1", "v2"], current)
    left = [known for known in ids if known not in gone]
    latest = sorted(ids, key=lambda known: numbering.automatic_time(known) or 0)[-3:]
    assert set(left) == {*latest, *([current] if current else [])}
    assert "v1" not in gone


@given(st.text())
def test_whatever_passes_is_safe_in_a_path(text: str) -> None:
    if numbering.is_checkpoint_id(text):
        assert text.isascii() and "/" not in text and "." not in text and "\n" not in text


def test_ids_that_are_none() -> None:
    for text in ("", "v", "v0", "v01", "v-1", "v1\n", "V1", "../v1", "auto-", "auto-0", "Current", "v٣"):
        assert not numbering.is_checkpoint_id(text), text
