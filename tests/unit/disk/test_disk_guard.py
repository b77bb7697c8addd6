"""When growth is refused, when writers must be paused, and how often to look."""

from hypothesis import given
from hypothesis import strategies as st

from spriggan.disk import guard
from spriggan.disk.guard import METADATA_RESERVE, Reading

GIB = 1 << 30
sizes = st.integers(0, 1 << 50)
readings = st.builds(Reading, reserve=sizes, free=sizes, pending=sizes, metadata_free=sizes)


def reading(free, pending=0, reserve=4 * GIB, metadata_free=10 * GIB):
    return Reading(reserve=reserve, free=free, pending=pending, metadata_free=metadata_free)


def test_default_reserve_is_the_larger_of_five_percent_and_two_gib():
    assert guard.default_reserve(10 * GIB) == 2 * GIB
    assert guard.default_reserve(1000 * GIB) == 50 * GIB


def test_thresholds():
    assert reading(4 * GIB).pressure == "ok"
    assert reading(4 * GIB - 1).pressure == "low"
    assert reading(2 * GIB).pressure == "low"
    assert reading(2 * GIB - 1).pressure == "critical"


def test_what_is_about_to_be_written_counts_as_gone():
    assert reading(5 * GIB, pending=2 * GIB).pressure == "low"
    assert reading(5 * GIB, pending=4 * GIB).pressure == "critical"
    assert "about to be written" in str(reading(5 * GIB, pending=2 * GIB))


def test_metadata_of_the_pool_counts():
    assert reading(100 * GIB, metadata_free=METADATA_RESERVE - 1).pressure == "low"
    assert reading(100 * GIB, metadata_free=METADATA_RESERVE // 2 - 1).pressure == "critical"
    assert "records" in str(reading(100 * GIB, metadata_free=1 << 20))


@given(readings, sizes)
def test_more_space_never_means_more_pressure(one, more):
    order = ["ok", "low", "critical"]
    better = Reading(one.reserve, one.free + more, one.pending, one.metadata_free + more)
    assert order.index(better.pressure) <= order.index(one.pressure)


@given(readings)
def test_the_fastest_writer_cannot_become_critical_unseen(one):
    assert 0.2 <= one.seconds <= 10
    if one.pressure == "ok" and one.seconds > 0.2:
        written = int(one.seconds * guard.FASTEST_WRITER)
        later = Reading(one.reserve, one.free - written, one.pending, one.metadata_free)
        assert later.left >= one.reserve // 2


def test_meminfo():
    text = "MemTotal:  100 kB\nDirty:        12 kB\nWriteback:     3 kB\nWritebackTmp:  9 kB\n"
    assert guard.pending_bytes(text) == 15 * 1024
