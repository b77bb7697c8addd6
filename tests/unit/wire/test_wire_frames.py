"""Framing of exec streams."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.wire.frames import Control, Input, InputEnd, Stream, exit_frame, frame, parse_input


@given(st.sampled_from(Stream), st.binary())
def test_a_frame_is_its_marker_and_its_payload(stream: Stream, payload: bytes) -> None:
    made = frame(stream, payload)
    assert made[0] == stream
    assert made[1:] == payload


@given(st.integers(0, 255))
def test_an_exit_frame_has_exactly_one_byte_of_code(code: int) -> None:
    assert exit_frame(code) == bytes((3, code))


@given(st.binary())
def test_framed_input_comes_back(data: bytes) -> None:
    assert parse_input(frame(Stream.STDIN, data)) == Input(data)


@given(st.binary())
def test_any_message_is_understood_somehow(message: bytes) -> None:
    parsed = parse_input(message)
    if isinstance(parsed, Input):
        assert parsed.data in (message, message[1:])
    elif isinstance(parsed, Control):
        assert parsed.text.encode() == message
    else:
        assert message[0] == Stream.STDIN_EOF


def test_the_end_of_input() -> None:
    assert parse_input(b"\x04") == InputEnd()


def test_input_without_a_marker_is_input() -> None:
    assert parse_input(b"hello") == Input(b"hello")


@pytest.mark.parametrize("kind", ["resize", "signal"])
def test_control_messages_sent_as_binary_are_control_messages(kind: str) -> None:
    text = json.dumps({"type": kind}, separators=(",", ":"))
    assert parse_input(text.encode()) == Control(text)
