"""Text messages of exec sockets."""

from __future__ import annotations

import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.wire import messages

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_session_info_has_what_every_client_needs() -> None:
    text = messages.session_info("12", command="ls", created=3, rows=24, cols=80, is_owner=True, tty=False)
    assert json.loads(text) == {
        "type": "session_info",
        "session_id": "12",
        "command": "ls",
        "created": 3,
        "rows": 24,
        "cols": 80,
        "is_owner": True,
        "tty": False,
    }


def test_the_exit_of_a_terminal_has_the_code_under_both_names() -> None:
    assert json.loads(messages.exit_message(7)) == {"type": "exit", "exit_code": 7, "code": 7}


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "sigterm", "15", 15])
def test_signals_by_name_and_number(name: object) -> None:
    assert messages.signal_number(name) == signal.SIGTERM


@pytest.mark.parametrize("name", [None, True, 0, -1, 65, 1000, "NOPE", "", "SIG", 1.5, [], {}, "999999999"])
def test_what_is_no_signal(name: object) -> None:
    assert messages.signal_number(name) is None


def test_resize() -> None:
    assert messages.parse_control('{"type":"resize","cols":180,"rows":50}') == messages.Resize(50, 180)


@given(JSON, JSON, JSON)
def test_nonsense_in_known_messages_is_ignored(rows: object, cols: object, number: object) -> None:
    for message in ({"type": "resize", "rows": rows, "cols": cols}, {"type": "signal", "signal": number}):
        parsed = messages.parse_control(json.dumps(message))
        if isinstance(parsed, messages.Resize):
            assert 1 <= parsed.rows <= 65535
            assert 1 <= parsed.cols <= 65535


@given(st.text(max_size=60))
def test_any_text_is_ignored_or_understood(text: str) -> None:
    messages.parse_control(text)


def test_deeply_nested_text_is_ignored() -> None:
    assert messages.parse_control("[" * 200_000) is None
