"""SIGKILL of the server: nothing of a sprite notices, and the next server finds everything."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
import websockets

import serving
from fault_points import POINTS


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


@pytest.mark.parametrize("point", POINTS)
def test_a_change_is_finished_or_undone(own: serving.Server, point: str) -> None:
    operation = point.partition(":")[0]
    name = point.replace(":", "-").replace("_", "-")
    own.start()
    sprite = own.client().create_sprite(name)
    serving.run(sprite, "echo before > state; sync")
    serving.finished(sprite.create_checkpoint("v1"))
    serving.finished(sprite.create_checkpoint("v2"))
    serving.run(sprite, "echo after > state; sync")
    own.stop()

    own.start(SPRIGGAN_FAULT=point)
    path = f"/v1/sprites/{name}"
    requests = {
        "create": ("POST", "/v1/sprites", {"name": f"{name}-new"}),
        "fork": ("POST", f"{path}/fork", {"name": f"{name}-new"}),
        "checkpoint": ("POST", f"{path}/checkpoint", {"comment": "v3"}),
        "restore": ("POST", f"{path}/checkpoints/v1/restore", {}),
        "destroy": ("DELETE", path, None),
        "delete_checkpoint": ("DELETE", f"{path}/checkpoints/v1", None),
    }
    method, target, body = requests[operation]
    with own.http() as http, pytest.raises(httpx.TransportError):
        http.request(method, target, json=body).raise_for_status()
    own.wait_killed()

    own.start()
    log = own.log.read_text()
    if not point.endswith(":done"):
        assert "undid" in log or "finished" in log, log
    client = own.client()
    with own.http() as http:
        there = http.get(path).status_code == 200
        assert there or operation == "destroy"
        if there:
            state = serving.run(sprite, "cat state")
            assert state in (("before", "after") if operation == "restore" else ("after",))
            ids = [c["id"] for c in http.get(f"{path}/checkpoints").json()]
            assert "v2" in ids and ("v1" in ids or operation == "delete_checkpoint")
            if operation == "checkpoint":
                serving.finished(sprite.create_checkpoint("again"))
            sprite.delete()
        if operation in ("create", "fork"):
            new = http.get(f"/v1/sprites/{name}-new").status_code
            if new == 404:
                assert http.post("/v1/sprites", json={"name": f"{name}-new"}).status_code == 201
            fresh = client.get_sprite(f"{name}-new")
            expected = "after" if operation == "fork" and new == 200 else ""
            assert serving.run(fresh, "cat state 2>/dev/null || true") == expected
            fresh.delete()
        assert http.get("/v1/sprites").json()["sprites"] == []
    own.stop()
    assert not list((own.data / "pool" / "disks").iterdir())
    assert not [p for p in (own.data / "pool" / "checkpoints").rglob("disk.img")]
