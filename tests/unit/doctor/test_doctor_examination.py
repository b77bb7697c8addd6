"""Running checks: in order, each within its time, and none that breaks takes others along."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from spriggan.doctor.check import Check, Place
from spriggan.doctor.examination import Result, examine
from spriggan.doctor.finding import Finding, Status, limited
from spriggan.errors import MissingCapability


def quick(place: Place) -> str:
    return f"pid {os.getpid()}"


def slow(place: Place) -> str:
    time.sleep(0.3)
    return "slow"


def endless(place: Place) -> str:
    time.sleep(1000)
    return "never"


def dies(place: Place) -> str:
    os._exit(9)


def breaks(place: Place) -> Finding:
    raise KeyError("what")


def lacks(place: Place) -> Finding:
    raise MissingCapability("no tool", hint="get it")


def talks(place: Place) -> Finding:
    return limited("x" * 100_000, costs="€" * 100_000)


def check(name: str, work: object, **more: object) -> Check:
    return Check(name, name.title(), work, "costs", **more)  # type: ignore[arg-type]


def run(*checks: Check) -> dict[str, Result]:
    return {result.check.name: result for result in examine(checks, Path("/nonexistent"))}


@pytest.mark.parametrize("private", [False, True])
def test_a_check_that_hangs_dies_or_breaks_is_said_to_fail_and_the_others_go_on(private: bool) -> None:
    if private and os.geteuid():
        pytest.skip("needs root")
    results = run(
        check("endless", endless, limit=0.1, private=private),
        check("slow", slow, private=private),
        check("dies", dies, private=private),
        check("breaks", breaks, private=private),
        check("lacks", lacks, private=private),
        *(check(f"quick{number}", quick, private=private) for number in range(4)),
    )
    assert results["endless"].finding.status is Status.FAILED
    assert "took more than" in results["endless"].finding.detail
    assert results["dies"].finding.status is Status.FAILED
    assert "its process died" in results["dies"].finding.detail
    assert results["breaks"].finding.status is Status.FAILED
    assert "KeyError: 'what'" in results["breaks"].finding.detail
    assert all(results[f"quick{number}"].finding.status is Status.WORKS for number in range(4))
    lacking = results["lacks"].finding
    if private:  # a try: that is its answer
        assert (lacking.status, lacking.detail, lacking.fix) == (Status.MISSING, "no tool", "get it")
        assert results["quick0"].finding.detail == "pid 1"
    else:
        assert lacking.status is Status.FAILED


def test_results_are_told_in_the_order_of_the_checks() -> None:
    told: list[str] = []
    checks = [check("slow", slow), check("one", quick), check("dies", dies), check("two", quick)]
    results = examine(checks, Path("/nonexistent"), tell=lambda result: told.append(result.check.name))
    assert told == [result.check.name for result in results] == ["slow", "one", "dies", "two"]


def test_checks_run_beside_each_other_in_other_processes() -> None:
    results = run(check("slow", slow), *(check(f"quick{number}", quick) for number in range(3)))
    pids = {results[f"quick{number}"].finding.detail for number in range(3)}
    assert pids != {f"pid {os.getpid()}"}
    assert sum(result.seconds for result in results.values()) < 2 * results["slow"].seconds


def test_endless_words_are_cut() -> None:
    found = run(check("talks", talks))["talks"].finding
    assert 0 < len(found.detail) < 10_000
    assert 0 < len(found.costs) < 10_000


def test_what_stands_in_the_way() -> None:
    for essential in (True, False):
        results = run(
            check("quick", quick, essential=essential),
            check("talks", talks, essential=essential),
            check("breaks", breaks, essential=essential),
        )
        found = [name for name, result in results.items() if result.stands_in_the_way]
        assert found == (["breaks"] if essential else [])
