"""SIGKILL between every two steps of making, taking and waking a spare; then a restart, as in ``test_matrix.py``.

The server of the other tests here has no spares: they are made when nobody asks, and pass the points of a start.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crashing import Answer, Bench
from test_matrix import EXEC, PILOT, PILOT_SERVES, PILOT_STARTS, UPLINK, points, server_died

import holdings
import serving
from serving import until

STARTED = [
    "wake:slot",
    "wake:layers",
    *UPLINK,
    "start:cgroups",
    "start:prepared",
    "start:forked",
    "start:reported",
]
MADE = ["spare:disk", *STARTED, *PILOT, *PILOT_STARTS, "pilot:spare", "wake:box", "spare:box"]
TAKEN = ["create:spare", "create:done"]
NAMED = ["take:spec", "start:forked", "start:reported", "wake:spare", "wake:done"]
NAMED_BY_PILOT = ["pilot:cgroup", "pilot:adopted", "pilot:named", *PILOT_SERVES]
LOOK = "cat /etc/hostname && hostname && wc -c < /etc/machine-id"


@pytest.fixture(scope="module")
def prepared() -> Iterator[Bench]:
    with serving.server() as server:
        made = Bench(server, spares=1)
        try:
            made.start()
            yield made
        finally:
            made.disarm()


@pytest.fixture
def bench(prepared: Bench) -> Bench:
    prepared.ready()
    until(lambda: holdings.spares(prepared.server), what="a spare")
    return prepared


@points(*MADE)
def test_made(bench: Bench, point: str) -> None:
    before = bench.held()

    def work() -> Answer:
        answer = bench.request("POST", "", {"name": "takes"})
        until(
            lambda: not bench.server.alive or holdings.spares(bench.server), what="another spare, or the end"
        )
        return answer

    bench.strike(point, "itself", "takes", work)
    server_died(bench, "itself", point)
    works(bench, "takes")
    bench.must("DELETE", "/takes")
    bench.nothing_left(before)


@points(*TAKEN)
def test_taken(bench: Bench, point: str) -> None:
    before = bench.held()
    bench.strike(point, "itself", "taken", lambda: bench.request("POST", "", {"name": "taken"}))
    bench.restart()
    done = bench.get("/taken") is not None
    assert done == (point == "create:done")
    if not done:
        bench.must("POST", "", {"name": "taken"})
    works(bench, "taken")
    bench.must("DELETE", "/taken")
    bench.nothing_left(before)


@points(*NAMED, *NAMED_BY_PILOT)
def test_named(bench: Bench, point: str) -> None:
    before = bench.held()
    for victim in ("itself", "init", *(["server"] if point in NAMED_BY_PILOT else [])):
        until(lambda: holdings.spares(bench.server), what="a spare")
        bench.must("POST", "", {"name": "named"})
        until(lambda: holdings.spares(bench.server), what="another spare")
        identity = str(bench.get("/named")["id"])
        bench.strike(point, victim, "named", lambda: bench.request("POST", f"/named{EXEC}"))
        server_died(bench, victim, point)
        works(bench, "named", patient=victim == "init")
        assert bench.get("/named")["id"] == identity
        bench.must("DELETE", "/named")
    bench.nothing_left(before)


def works(bench: Bench, name: str, *, patient: bool = False) -> None:
    assert bench.look(name, LOOK, whole=False, patient=patient).split() == [name, name, "33"]
