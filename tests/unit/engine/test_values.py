"""What users may ask for."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.engine import values
from spriggan.engine.options import Options
from spriggan.engine.records import URL_SETTINGS_DEFAULT
from spriggan.errors import InvalidValue

OPTIONS = Options(max_ram_mb=8192, max_cpus=4, max_storage_gb=100)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True))
def test_good_names(text: str) -> None:
    assert values.name(text) == text


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a_b", "a.b", "a" * 64, "a\n", "../a", "é", "٣", None, 3, []]
)
def test_bad_names(text: object) -> None:
    with pytest.raises(InvalidValue) as caught:
        values.name(text)
    assert caught.value.hint


@given(anything)
def test_nothing_breaks_a_check(given_value: Any) -> None:
    for check in (
        values.name,
        values.labels,
        values.environment,
        values.comment,
        lambda value: values.url_settings(value, URL_SETTINGS_DEFAULT),
        lambda value: values.config(value, OPTIONS),
        lambda value: values.config({"ram_mb": value, "cpus": value, "storage_gb": value}, OPTIONS),
        lambda value: values.box(value, OPTIONS, ("container",)),
    ):
        try:
            check(given_value)
        except InvalidValue as error:
            assert error.message.isprintable() and error.hint


def test_config_takes_defaults_and_keeps_to_the_maxima() -> None:
    assert values.config(None, OPTIONS).ram_mb == 2048
    assert values.config({"ram_mb": 8192, "cpus": 4, "storage_gb": 100, "region": "x"}, OPTIONS).cpus == 4
    small = Options(max_ram_mb=1024, max_storage_gb=10)
    assert (values.config({}, small).ram_mb, values.config({}, small).storage_gb) == (1024, 10)


@pytest.mark.parametrize(
    "given_value",
    [
        {"ram_mb": 8193},
        {"ram_mb": 1},
        {"ram_mb": "2048"},
        {"ram_mb": True},
        {"ram_mb": 2048.5},
        {"ram_mb": 10**400},
        {"cpus": math.nan},
        {"cpus": math.inf},
        {"cpus": -1},
        {"storage_gb": 0},
        {"storage_gb": 101},
        {"pids": 1},
        {"gpus": 1},
        [],
        "x",
    ],
)
def test_config_out_of_bounds(given_value: object) -> None:
    with pytest.raises(InvalidValue):
        values.config(given_value, OPTIONS)


@pytest.mark.parametrize(
    "given_value",
    [
        {"": "x"},
        {"A=B": "x"},
        {"1A": "x"},
        {"A": 1},
        {"A": "\0"},
        {"A": "\ud800"},
        {"A": "x" * 70000},
        [],
        None,
    ],
)
def test_bad_environments(given_value: object) -> None:
    with pytest.raises(InvalidValue):
        values.environment(given_value)


def test_labels_lose_repetitions_and_keep_their_order() -> None:
    assert values.labels(["b", "a", "b"]) == ["b", "a"]
    for bad in ([""], ["a\n"], ["x" * 129], [1], "ab", [str(n) for n in range(65)]):
        with pytest.raises(InvalidValue):
            values.labels(bad)


def test_url_settings_change_what_is_given() -> None:
    changed = values.url_settings({"auth": "public"}, URL_SETTINGS_DEFAULT)
    assert changed == {"auth": "public", "private_access": "org_users"}
    for bad in ({"auth": "none"}, {"auth": ["public"]}, {"x": "y"}, [], {1: 2}):
        with pytest.raises(InvalidValue):
            values.url_settings(bad, URL_SETTINGS_DEFAULT)
