"""The rest of the API that is no stream and no file: health, restarts, watching, limits, tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sprites import SpritesClient
from sprites.exceptions import parse_api_error

import serving
from proof import PLAIN, proves


@proves("sprites: check, without waking", PLAIN)
def test_check_says_how_a_sprite_is_and_does_not_wake_it(server: serving.Server, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}"
    with server.http() as http:
        health = http.get(f"{path}/check").json()
        assert (health["sprite_name"], health["sprite_id"]) == (sprite.name, http.get(path).json()["id"])
        assert (health["status"], health["reason"]) == ("hibernated", None)
        assert http.get(path).json()["status"] == "cold"

        serving.run(sprite, "true")
        health = http.get(f"{path}/check").json()
        assert health["status"] == "healthy" and health["elapsed"] >= 0
        assert http.get("/v1/sprites/nobody/check").status_code == 404


@proves("sprites: restart", PLAIN)
def test_restart_ends_processes_and_keeps_the_disk(server: serving.Server, sprite: Any) -> None:
    boot = "cat /proc/1/stat | cut -d' ' -f22"
    serving.run(sprite, "echo kept > kept; touch /dev/shm/lost")
    before = serving.run(sprite, boot)
    with server.http() as http:
        answer = http.post(f"/v1/sprites/{sprite.name}/restart")
        assert answer.status_code == 200, answer.text
        assert answer.json()["sprite_name"] == sprite.name
        assert http.get(f"/v1/sprites/{sprite.name}").json()["status"] == "running"
    assert serving.run(sprite, boot) != before
    assert serving.run(sprite, "cat kept; ls /dev/shm") == "kept"


@proves("sprites: upgrade", PLAIN)
def test_upgrade_is_a_restart_with_the_version_there_is(server: serving.Server, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}"
    with server.http() as http:
        assert http.post(f"{path}/upgrade").json() == {"name": sprite.name, "status": "upgraded"}
        assert http.get(path).json()["status"] == "cold"
        serving.run(sprite, "touch /dev/shm/lost")
        version = http.get(path).json()["version"]
        assert http.post(f"{path}/upgrade", json={"version": version}).status_code == 200
        assert serving.run(sprite, "ls /dev/shm") == ""
        refused = http.post(f"{path}/upgrade", json={"version": "99.0.0"})
        assert refused.status_code == 422 and version in refused.json()["error"]
    server.client().upgrade_sprite(sprite.name)


@proves("sprites: watch, as NDJSON", PLAIN)
async def test_a_watched_list_tells_of_every_change(
    server: serving.Server, new_name: Callable[[], str]
) -> None:
    name = f"watched-{new_name()}"
    client = server.client()
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/x-ndjson"}
    seen: list[dict[str, Any]] = []

    async def watch() -> None:
        async with (
            httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http,
            http.stream("GET", "/v1/sprites", params={"prefix": "watched-"}) as answer,
        ):
            assert answer.headers["content-type"].startswith("application/x-ndjson")
            async for line in answer.aiter_lines():
                seen.append(json.loads(line))
                if seen[-1].get("status") == "destroyed":
                    return

    sprite = await asyncio.to_thread(client.create_sprite, name)
    watching = asyncio.create_task(watch())
    while not seen:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(serving.run, sprite, "true")
    await asyncio.to_thread(sprite.delete)
    async with asyncio.timeout(30):
        await watching
    statuses = [line["status"] for line in seen if line.get("name") == name]
    assert list(dict.fromkeys(statuses)) == ["cold", "running", "destroyed"]
    assert all({"timestamp", "org"} <= line.keys() for line in seen)
    assert {"running", "warm", "cold", "name"} <= seen[0]["org"].keys()


@pytest.mark.slow
@proves("sprites: watch says that it is alive when nothing happens", PLAIN)
def test_a_watched_list_has_a_heartbeat(server: serving.Server) -> None:
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/x-ndjson"}
    with httpx.stream("GET", f"{server.url}/v1/sprites?prefix=none-", headers=headers, timeout=60) as answer:
        line = json.loads(next(answer.iter_lines()))
    assert line["type"] == "heartbeat" and line["timestamp"]
    assert {"name", "running", "warm", "cold"} <= line["org"].keys()


@proves("tokens: minted with FlyV1", PLAIN)
def test_tokens_are_minted_as_the_official_client_does(server: serving.Server) -> None:
    organization = server.token.split("/")[0]
    path = f"/v1/organizations/{organization}/tokens"
    body = {"description": "Sprite SDK Token", "invite_code": "x"}
    made = httpx.post(f"{server.url}{path}", json=body, headers={"Authorization": f"FlyV1 {server.token}"})
    assert made.status_code == 201, made.text
    token = made.json()["token"]
    assert SpritesClient(token, base_url=server.url).list_sprites() is not None
    other = httpx.post(
        f"{server.url}/v1/organizations/other/tokens", headers={"Authorization": f"FlyV1 {server.token}"}
    )
    assert other.status_code == 404
    assert httpx.post(f"{server.url}{path}", headers={"Authorization": "FlyV1 no"}).status_code == 401
    listed = json.loads(server.cli("token", "list", "--json").stdout)
    mine = [entry["id"] for entry in listed if entry["label"] == "Sprite SDK Token"]
    assert mine == [token.split("/")[2]]
    assert server.cli("token", "revoke", mine[0]).returncode == 0


@pytest.fixture
def limited() -> Any:
    with serving.server() as own:
        own.start("--max-running", "1", "--create-rate", "3")
        yield own


@proves("errors: structured 429", PLAIN)
def test_limits_are_said_as_clients_read_them(limited: serving.Server) -> None:
    client = limited.client()
    first, second = client.create_sprite("a"), client.create_sprite("b")
    with limited.http() as http:
        created = http.post("/v1/sprites", json={"name": "c"})
        assert created.status_code == 201
        assert (created.headers["X-RateLimit-Limit"], created.headers["X-RateLimit-Remaining"]) == ("3", "0")
        refused = http.post("/v1/sprites", json={"name": "d"})
        error = parse_api_error(refused.status_code, refused.content, dict(refused.headers))
        assert error is not None and error.is_rate_limit_error() and error.is_creation_rate_limited()
        assert (error.limit, error.window_seconds, error.current_count) == (3, 60, 3)
        assert 1 <= int(refused.headers["Retry-After"]) == error.retry_after_seconds <= 60
        assert int(refused.headers["X-RateLimit-Reset"]) > time.time()
        assert http.get("/v1/sprites/d").status_code == 404

        serving.run(first, "true")
        refused = http.post("/v1/sprites/b/exec", params={"cmd": "true"})
        error = parse_api_error(refused.status_code, refused.content, dict(refused.headers))
        assert error is not None and error.is_concurrent_limit_exceeded() and error.limit == 1
        assert http.get("/v1/organization").json()["organization"]["active_sprite_limit"] == 1
        assert http.get("/v1/sprites").json()["org"]["running_limit"] == 1
        http.post("/v1/sprites/a/stop")
    assert serving.run(second, "echo now") == "now"


def test_a_server_that_ends_does_not_wait_for_watchers(limited: serving.Server) -> None:
    headers = {"Authorization": f"Bearer {limited.token}", "Accept": "application/x-ndjson"}
    limited.client().create_sprite("a")
    with httpx.stream("GET", f"{limited.url}/v1/sprites", headers=headers, timeout=30) as answer:
        assert json.loads(next(answer.iter_lines()))["name"] == "a"
        limited.stop()
