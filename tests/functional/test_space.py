"""What a sprite deletes is free on the host."""

from __future__ import annotations

import time

import serving


def test_deleted_data_is_given_back() -> None:
    with serving.server() as own:
        own.start()
        sprite = own.client().create_sprite("eats")
        pool = own.data / "pool.img"

        def used() -> int:
            return pool.stat().st_blocks * 512

        serving.run(sprite, "sync")
        empty = used()
        serving.run(sprite, "head -c 300000000 /dev/urandom > big; sync")
        assert used() - empty > 290_000_000
        serving.run(sprite, "rm big; sync")
        done = own.cli("pool", "trim")
        assert done.returncode == 0, done.stderr
        assert used() - empty < 60_000_000

        serving.run(sprite, "head -c 300000000 /dev/urandom > big; sync; rm big; sync")
        deadline = time.monotonic() + 180
        while used() - empty >= 60_000_000:
            assert time.monotonic() < deadline, f"{used() - empty} bytes are not given back"
            time.sleep(1)


def test_the_reserve_refuses_growth() -> None:
    with serving.server() as own:
        own.start("--reserve", str(10_000_000))  # more MiB than any host here has free
        with own.http() as http:
            answer = http.post("/v1/sprites", json={"name": "nothing"})
        assert answer.status_code == 507, answer.text
        assert answer.json()["hint"]
