"""Go durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.wire.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("10s", 10),
        ("5.0s", 5),
        (".5s", 0.5),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("-3s", -3),
        ("+3s", 3),
        ("2us", 2e-6),
        ("2\u00b5s", 2e-6),
        ("7ns", 7e-9),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "10", "s", "-", "10 s", "1d", "ten", "1s\n", "1s x", "\u0661s", "1e3s", "9" * 18 + "h", "1s\0"],
)
def test_nonsense_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.text(max_size=40))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        assert "duration" in str(error)


@given(st.floats(0, 1e6).map(lambda seconds: round(seconds, 6)))
def test_what_is_written_is_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-8)
