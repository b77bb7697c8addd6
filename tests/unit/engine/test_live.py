"""One sprite in memory."""

from __future__ import annotations

import pytest

from spriggan.engine.live import Live, Phase


def test_steps_that_make_no_sense_are_refused() -> None:
    live = Live("sprite-1")
    with pytest.raises(RuntimeError, match="from cold to warm"):
        live.move(Phase.WARM)
    for phase in (Phase.WAKING, Phase.RUNNING, Phase.WARM, Phase.RUNNING, Phase.STOPPING, Phase.COLD):
        live.move(phase)
    live.move(Phase.DESTROYING)
    with pytest.raises(RuntimeError):
        live.move(Phase.COLD)


def test_every_phase_shows_as_one_of_three() -> None:
    for phase in Phase:
        assert Live("sprite-1", phase).status in ("cold", "warm", "running")
    restoring = Live("sprite-1", Phase.RESTORING)
    assert restoring.status == "cold"
    restoring.slot = 3
    assert restoring.status == "running"


def test_holds_are_counted_and_shown_once() -> None:
    live = Live("sprite-1", Phase.RUNNING)
    live.pilot_reasons = ["session 12"]
    with live.hold("GET /exec"), live.hold("GET /exec"):
        assert live.held and live.reasons == ["GET /exec", "session 12"]
    assert not live.held and live.reasons == ["session 12"]


def test_a_paused_sprite_says_why() -> None:
    live = Live("sprite-1", Phase.PAUSED)
    live.paused_because = "no space"
    assert live.reasons == ["paused: no space"] and live.status == "running"
