"""Idle sprites stand still and wake; processes keep their memory."""

from __future__ import annotations

import time

import serving


def test_warm_and_back() -> None:
    with serving.server() as own:
        own.start("--idle", "1")
        sprite = own.client().create_sprite("rests")
        serving.run(sprite, "(sleep 987 &)")
        with own.http() as http:
            for _ in range(150):
                if http.get("/v1/sprites/rests").json()["status"] == "warm":
                    break
                time.sleep(0.1)
            else:
                raise AssertionError("the sprite does not become warm")
        assert serving.run(sprite, "pgrep -fc '[s]leep 987'") == "1"
