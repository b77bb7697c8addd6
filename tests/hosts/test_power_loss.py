"""The power of a whole machine is cut: what was acknowledged is there, and nothing else is left.

A guest works on a disk whose writes and flushes are logged; it is killed without a word. From the log
come disks as they may be after that, and as they may have been had the power gone at other moments:
everything flushed by then is on them, of the rest any part. Other guests start servers on them.

``SPRIGGAN_POWER_ROUNDS`` (1 unless given) says how often; ``SPRIGGAN_POWER_SEED`` repeats choices.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import guest
import power
import promises
import pytest

from fault_points import POINTS

pytestmark = [pytest.mark.slow, pytest.mark.machine]

ROUNDS = int(os.environ.get("SPRIGGAN_POWER_ROUNDS", "1"))
SEED = int(os.environ.get("SPRIGGAN_POWER_SEED") or random.SystemRandom().randrange(1 << 32))
POINTS_A_ROUND = 3
MOMENTS_A_ROUND = 3


@pytest.mark.parametrize("number", range(ROUNDS))
def test_everything_acknowledged_is_there(number: int) -> None:
    guest.require()
    chance = random.Random(SEED + number)
    points = chance.sample(POINTS, POINTS_A_ROUND)
    with tempfile.TemporaryDirectory(prefix="spriggan-power-", dir="/var/tmp") as name:
        directory = Path(name)
        recording = power.record(directory / "record", points, changes=chance.randrange(30, 50))
        cuts = {"the end": len(recording.entries)}
        busy = 0
        for report in recording.reports:
            if report.facts["say"] == "died":
                cuts[report.facts["point"]] = recording.count(report.size)
            elif report.facts["say"] == "busy":
                busy = report.flushed
        for moment in range(MOMENTS_A_ROUND):
            cuts[f"moment {moment}"] = chance.randrange(busy, len(recording.entries))
        images = {}
        for what, cut in cuts.items():
            images[what] = directory / what.replace(":", "-").replace(" ", "-")
            power.after(recording, cut, images[what], chance)
        found = power.inventories(directory, images)
        wrong = []
        for what, cut in cuts.items():
            kept = promises.at(recording.reports, cut)
            wrong += [f"{what}, {cut} entries: {line}" for line in promises.broken(kept, found[what])]
            wrong += _unreported(what, kept, found[what])
        told = f"SPRIGGAN_POWER_SEED={SEED + number} repeats the choices"
        assert not wrong, "\n".join([told, *wrong, *(f"{what}: {found[what]['log']}" for what in cuts)])


def _unreported(what: str, kept: promises.Promises, found: dict[str, object]) -> list[str]:
    """A sprite that ran when the power went says so, and a change that was cut in two is reported."""
    log = str(found["log"])
    missing = []
    if what in POINTS and not what.endswith(":done") and "undid" not in log and "finished" not in log:
        missing.append(f"{what}: the server's log says nothing of the change that was under way")
    if "diary" in kept.allowed and kept.diary and "diary is cold" not in log:
        missing.append(f"{what}: the server's log does not say that diary is cold")
    return missing
