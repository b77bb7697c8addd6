"""The spool: output of a session in a file of bounded size."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from spriggan.pilot.spool import MARK_EVERY, READ_BYTES, Spool

HEADER = 5
Records = list[tuple[int, bytes]]

# Few bytes make many: a record is a stream, a byte and how often it is repeated.
records = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.integers(0, 255), st.integers(0, 60 * 1024)).map(
        lambda made: (made[0], bytes((made[1],)) * made[2])
    ),
    max_size=60,
)


@contextmanager
def opened(limit: int) -> Iterator[Spool]:
    with tempfile.TemporaryDirectory() as directory:
        spool = Spool(Path(directory) / "1", limit)
        spool.open()
        try:
            yield spool
        finally:
            spool.close()
            assert not list(Path(directory).iterdir())


def read_from(spool: Spool, offset: int) -> tuple[Records, int]:
    """Everything from ``offset`` on, and how many bytes of the file were missed."""
    found: Records = []
    lost = 0
    while offset < spool.end:
        batch = spool.read(offset)
        assert batch.end > offset, "a reader must get on"
        found += batch.records
        lost += batch.lost
        offset = batch.end
    return found, lost


@settings(max_examples=40, deadline=None)
@given(records)
def test_all_comes_back_while_it_fits(written: Records) -> None:
    with opened(1 << 30) as spool:
        for stream, payload in written:
            spool.append(stream, payload)
        assert read_from(spool, 0) == (written, 0)


@settings(max_examples=40, deadline=None)
@given(records, st.integers(MARK_EVERY, 4 * MARK_EVERY))
def test_of_too_much_the_newest_stays_and_the_loss_is_counted(written: Records, limit: int) -> None:
    with opened(limit) as spool:
        for stream, payload in written:
            spool.append(stream, payload)
        found, lost = read_from(spool, 0)
        assert found == written[len(written) - len(found) :]
        dropped = written[: len(written) - len(found)]
        assert lost == sum(HEADER + len(payload) for _, payload in dropped)
        # Whole stretches are dropped, so it may be less than the limit by one of them, never by more.
        kept = sum(HEADER + len(payload) for _, payload in found)
        assert kept <= limit + MARK_EVERY + READ_BYTES
        if dropped:
            assert kept >= limit - 2 * MARK_EVERY


def test_the_file_does_not_take_more_than_its_limit() -> None:
    with opened(1 << 20) as spool:
        for _ in range(1000):
            spool.append(1, b"x" * 50_000)
        taken = spool._path.stat().st_blocks * 512
        assert taken <= (1 << 20) + 2 * MARK_EVERY
        _, lost = read_from(spool, 0)
        assert lost > 48_000_000


def test_readers_go_at_their_own_speed() -> None:
    with opened(1 << 20) as spool:
        spool.append(1, b"a")
        early = spool.read(0)
        spool.append(2, b"b")
        assert early.records == [(1, b"a")]
        assert spool.read(early.end).records == [(2, b"b")]
        assert spool.read(0).records == [(1, b"a"), (2, b"b")]


@settings(max_examples=20, deadline=None)
@given(records)
def test_the_next_pilot_finds_what_there_is(written: Records) -> None:
    with opened(MARK_EVERY) as spool:
        for stream, payload in written:
            spool.append(stream, payload)
        left = json.loads(json.dumps(spool.leave()))
        found = Spool.found(spool._path.parent, left)
        assert read_from(found, 0) == read_from(spool, 0)
        assert found.size == spool.size
        found.close()
