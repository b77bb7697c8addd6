"""What the benchmarks say of their samples, and where they write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import document
from bench.figures import Row, percentile, table

SAMPLES = st.lists(st.floats(min_value=0, max_value=1e9), min_size=1)
PERCENT = st.integers(min_value=1, max_value=100)


@given(SAMPLES, PERCENT, st.booleans())
def test_a_percentile_was_measured_and_as_many_are_no_worse(
    samples: list[float], percent: int, more: bool
) -> None:
    found = percentile(samples, percent, more_is_better=more)
    assert found in samples
    no_worse = sum(sample >= found if more else sample <= found for sample in samples)
    assert no_worse * 100 >= percent * len(samples)
    better = sum(sample > found if more else sample < found for sample in samples)
    assert better * 100 < percent * len(samples)


def test_of_times_the_tail_is_the_slow_end_and_of_rates_too() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert [Row("", hundred).percentile(p) for p in (50, 95, 99)] == [50, 95, 99]
    rates = Row("", hundred, "MiB/s", more_is_better=True)
    assert [rates.percentile(p) for p in (50, 95, 99)] == [51, 6, 2]


def test_a_ratio_is_to_the_median_of_the_other() -> None:
    peer = Row("peer", [1.0, 10.0, 100.0])
    row = Row("ours", [2.0, 5.0, 40.0], against=peer)
    assert row.ratio == 0.5
    assert Row("ours", row.samples, against=peer, quantile=99).ratio == 4


@pytest.mark.parametrize(
    ("aim", "more", "met"), [(0.5, False, True), (0.4, False, False), (0.5, True, True), (0.6, True, False)]
)
def test_an_aim_is_a_bound_of_the_ratio(aim: float, more: bool, met: bool) -> None:
    row = Row("ours", [5.0], against=Row("peer", [10.0]), aim=aim, more_is_better=more)
    assert row.met is met


def test_an_aim_in_the_row_s_unit_bounds_the_value() -> None:
    peer = Row("peer", [2.0], "MiB")
    assert Row("ours", [9.0], "MiB", against=peer, aim=10, aim_in_unit=True).met is True
    assert Row("ours", [11.0], "MiB", against=peer, aim=10, aim_in_unit=True).met is False
    assert Row("ours", [11.0], "MiB", against=peer).met is None


def test_a_table_has_a_line_for_each_row() -> None:
    peer = Row("peer", [1234.5], "MiB/s", more_is_better=True)
    rows = [peer, Row("ours", [500.0], "MiB/s", against=peer, aim=0.5, more_is_better=True)]
    lines = table([row.to_json() for row in rows]).splitlines()
    assert lines[2] == "| peer | 1,234 MiB/s | 1,234 MiB/s | 1,234 MiB/s | 1 |  |  |  |  |"
    assert lines[3] == "| ours | 500.0 MiB/s | 500.0 MiB/s | 500.0 MiB/s | 1 | peer | 0.41 | ≥ 0.5 | **no** |"


MACHINE = {
    "date": "2030-01-01",
    "spriggan": "0.1",
    "cpus": 2,
    "memory_gib": 24,
    "distribution": "Debian",
    "kernel": "6.18",
    "cgroups": "hybrid",
    "file_system": "ext4",
    "python": "3.11",
    "podman": "podman 4",
    "load": 0.1,
}


def results(**failed: str | None) -> dict[str, Any]:
    row = Row("ours", [1.0]).to_json()
    found = {
        name: {"title": name.upper(), "about": "By hand.", "failed": words, "rows": [] if words else [row]}
        for name, words in failed.items()
    }
    return {"machine": MACHINE, "rounds": 1, "benchmarks": found}


def test_figures_replace_what_is_between_the_marks_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{document.START}\nold\n{document.END}\n\nThe end.\n")
    document.fill(page, results(exec=None, disk="it broke"))
    first = page.read_text()
    document.fill(page, results(exec=None, disk="it broke"))
    assert page.read_text() == first
    assert first.startswith(f"# Title\n\n{document.START}\n\nMeasured on 2030-01-01")
    assert first.endswith(f"{document.END}\n\nThe end.\n")
    assert "old" not in first
    assert "## EXEC\n\nBy hand.\n\n| what |" in first
    assert "## DISK\n\nBy hand.\n\nThis one failed in this run." in first


@pytest.mark.parametrize("text", ["nothing", document.START, document.END, f"{document.END}{document.START}"])
def test_a_page_without_a_place_stays_as_it_is(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"page\.md has no place"):
        document.fill(page, results(exec=None))
    assert page.read_text() == text
