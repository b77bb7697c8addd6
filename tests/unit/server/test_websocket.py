"""Frames found among the bytes of a WebSocket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from spriggan.server.websocket import Frames, closing_frame

CONTROL = (Opcode.PING, Opcode.PONG, Opcode.CLOSE)
FRAMES = st.tuples(
    st.sampled_from(list(Opcode)), st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
).map(lambda pair: (pair[0], min(pair[1], 125) if pair[0] in CONTROL else pair[1]))


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 70_000), max_size=20), st.booleans())
def test_frames_are_found_however_the_bytes_come(
    frames: list[tuple[Opcode, int]], cuts: list[int], mask: bool
) -> None:
    followed = Frames()
    for opcode, size in frames:
        data = Frame(opcode, bytes(size)).serialize(mask=mask)
        found = []
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            found.append(followed.feed(piece))
            assert followed.between == (not data)
        assert any(found) == (opcode not in CONTROL)
    assert followed.closed == any(opcode == Opcode.CLOSE for opcode, _ in frames)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    Frames().feed(data)


def test_the_closing_frame() -> None:
    expected = Frame(Opcode.CLOSE, Close(1012, "it ends").serialize()).serialize(mask=False)
    assert closing_frame(1012, "it ends") == expected
