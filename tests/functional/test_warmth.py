"""Idle sprites stand still and wake; processes keep their memory."""

from __future__ import annotations

import time

import serving
from proof import PLAIN, proves


@proves("sessions: a warm pause keeps processes, and their pids", PLAIN)
def test_warm_and_back() -> None:
    with serving.server() as own:
        own.start("--idle", "1")
        sprite = own.client().create_sprite("rests")
        pid = serving.run(sprite, "sleep 987 >/dev/null 2>&1 & echo $!")
        with own.http() as http:
            for _ in range(150):
                if http.get("/v1/sprites/rests").json()["status"] == "warm":
                    break
                time.sleep(0.1)
            else:
                raise AssertionError("the sprite does not become warm")
        assert serving.run(sprite, "pgrep -f '[s]leep 987'") == pid
