"""Outputs that are cut for agents: nothing is lost without a word, and nothing grows."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from spriggan.cli.tools.bounds import Bounded, rows

pieces = st.lists(st.binary(max_size=40).map(lambda data: bytes(byte & 0x3F | 0x40 for byte in data)))


@given(pieces, st.integers(1, 30).map(lambda half: 2 * half))
def test_the_beginning_and_the_end_are_kept_and_the_rest_is_counted(given: list[bytes], limit: int) -> None:
    bounded = Bounded(limit)
    for piece in given:
        bounded.add(piece)
    whole = b"".join(given).decode()
    shown = bounded.text()
    if len(whole) <= limit:
        assert shown == whole
    else:
        found = re.fullmatch(r"(.*)\n\[… (\d+) bytes are left out here[^\n]*\]\n(.*)", shown, re.DOTALL)
        assert found is not None
        assert whole.startswith(found[1]) and whole.endswith(found[3])
        assert len(found[1]) == len(found[3]) == limit // 2
        assert len(found[1]) + int(found[2]) + len(found[3]) == len(whole)


def test_rows_that_are_left_out_are_counted() -> None:
    assert rows("a", [1, 2], "hint") == {"a": [1, 2]}
    cut = rows("a", list(range(203)), "look deeper")
    assert cut == {"a": list(range(200)), "left_out": "3 more; look deeper"}
