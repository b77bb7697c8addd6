"""Frames of an exec stream: one byte that names the stream, then the payload.

Without a terminal every binary message is a frame; with one, binary messages are the
terminal's raw bytes and only text messages are structured. The exit frame carries exactly
one byte: the official clients read the first byte after the marker, and one of them
refuses a longer frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

MAX_PAYLOAD = 60 * 1024  # a frame stays under the 64 KiB that every client takes in one read


class Stream(IntEnum):
    """The first byte of a frame."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    STDIN_EOF = 4


@dataclass(frozen=True)
class Input:
    """Bytes for the command's standard input."""

    data: bytes


@dataclass(frozen=True)
class InputEnd:
    """The end of the command's standard input."""


@dataclass(frozen=True)
class Control:
    """JSON that a client sent as a binary message; it belongs with the text messages."""

    text: str


def frame(stream: Stream | int, payload: bytes) -> bytes:
    """Put the stream's marker before ``payload``."""
    return bytes((stream,)) + payload


def exit_frame(code: int) -> bytes:
    """The last frame of a command without a terminal."""
    return bytes((Stream.EXIT, code & 0xFF))


def parse_input(message: bytes) -> Input | InputEnd | Control:
    """Read a binary message from a client that runs a command without a terminal.

    Old clients send input without a marker, and one sends its control messages as binary
    JSON; neither can be mistaken for a marker, so both are taken for what they are.
    """
    if not message:
        return Input(b"")
    if message[0] == Stream.STDIN:
        return Input(message[1:])
    if message[0] == Stream.STDIN_EOF:
        return InputEnd()
    if message.startswith(b'{"type"'):
        try:
            return Control(message.decode())
        except UnicodeDecodeError:
            pass
    return Input(message)
