"""Definitions of services: what is accepted, and what a disk may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.pilot.request import BadRequest
from spriggan.pilot.services import book
from spriggan.pilot.services.definition import NAME, Definition, parse

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
definitions = st.builds(
    Definition,
    name=st.from_regex(NAME, fullmatch=True),
    cmd=texts.filter(bool),
    args=st.lists(texts, max_size=3),
    env=st.dictionaries(texts.filter(lambda text: text and "=" not in text), texts, max_size=3),
    dir=st.none() | texts.map(lambda text: f"/{text}"),
    needs=st.lists(
        st.from_regex(NAME, fullmatch=True).map(lambda name: f"{name[:60]}-n"), max_size=2, unique=True
    ),
    http_port=st.none() | st.integers(1, 65535),
    stopped=st.booleans(),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk")
    (path / "sprite").mkdir()
    return path


@given(st.lists(definitions, max_size=4, unique_by=lambda definition: definition.name))
def test_what_is_saved_is_loaded(disk: Path, saved: list[Definition]) -> None:
    book.save(disk, saved)
    assert book.load(disk) == {definition.name: definition for definition in saved}


@given(definitions)
def test_what_clients_see_can_be_sent_back(definition: Definition) -> None:
    shown = definition.to_json()
    assert parse(shown["name"], shown).to_json() == shown


@given(st.dictionaries(st.sampled_from(["cmd", "args", "env", "dir", "needs", "http_port"]), anything))
def test_anything_is_understood_or_refused(data: dict[str, Any]) -> None:
    try:
        found = parse("web", data)
    except BadRequest as error:
        assert error.message and error.hint
    else:
        assert found.cmd == data["cmd"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"services": []}',
        '{"services": {"a": {}}}',
        '{"services": {"..": {"cmd": "x"}}}',
        "\xff",
    ],
)
def test_a_file_that_makes_no_sense_is_put_aside(disk: Path, text: str) -> None:
    file = disk / book.FILE
    file.write_bytes(text.encode("latin-1"))
    assert book.load(disk) == {}
    assert not file.exists() and file.with_suffix(".unreadable").read_bytes() == text.encode("latin-1")


def test_no_file_is_no_services(disk: Path) -> None:
    (disk / book.FILE).unlink(missing_ok=True)
    assert book.load(disk) == {}


def test_a_stopped_service_is_kept_so(disk: Path) -> None:
    book.save(disk, [Definition("a", "x", stopped=True)])
    assert json.loads((disk / book.FILE).read_text())["services"]["a"]["stopped"] is True
    assert book.load(disk)["a"].stopped
