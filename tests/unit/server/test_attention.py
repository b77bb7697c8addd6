"""Messages found among the bytes of a WebSocket."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from spriggan.server.attention import Messages

CONTROL = (Opcode.PING, Opcode.PONG, Opcode.CLOSE)
FRAMES = st.tuples(
    st.sampled_from(list(Opcode)), st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
).map(lambda pair: (pair[0], min(pair[1], 125) if pair[0] in CONTROL else pair[1]))


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 70_000), max_size=20))
def test_messages_are_found_however_the_bytes_come(frames: list[tuple[Opcode, int]], cuts: list[int]) -> None:
    messages = Messages()
    for opcode, size in frames:
        data = Frame(opcode, bytes(size)).serialize(mask=True)
        found = []
        for cut in [*cuts, len(data)]:
            piece, data = data[:cut], data[cut:]
            found.append(messages.feed(piece))
        assert any(found) == (opcode not in CONTROL)


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    Messages().feed(data)
