"""SIGKILL of the server: nothing of a sprite notices, and the next server finds everything."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import websockets

import serving


@pytest.fixture(scope="module")
def own() -> Iterator[serving.Server]:
    with serving.server() as found:
        yield found


async def test_sessions_live_on(own: serving.Server) -> None:
    own.start()
    sprite = own.client().create_sprite("lives")
    query = "cmd=sh&cmd=-c&cmd=n%3D0%3B%20while%20%3A%3B%20do%20echo%20%24n%3B%20n%3D%24((n%2B1))%3B%20sleep%200.1%3B%20done"
    url = f"{own.url.replace('http', 'ws')}/v1/sprites/lives/exec?{query}&max_run_after_disconnect=0"
    headers = {"Authorization": f"Bearer {own.token}"}
    async with websockets.connect(url, additional_headers=headers) as socket:
        session = json.loads(await socket.recv())["session_id"]
        assert await socket.recv() == b"\x010\n"
        own.kill()
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    own.start()
    assert serving.run(sprite, "echo still") == "still"
    with own.http() as http:
        assert [s["id"] for s in http.get("/v1/sprites/lives/exec").json()["sessions"]] == [session]
        path = f"{own.url.replace('http', 'ws')}/v1/sprites/lives/exec/{session}"
        async with websockets.connect(path, additional_headers=headers) as socket:
            await socket.recv()
            for number in range(20):  # replayed from the start, without a gap over the crash
                assert await socket.recv() == f"\x01{number}\n".encode()
        http.post(f"/v1/sprites/lives/exec/{session}/kill")
    sprite.delete()
    own.stop()
