"""Bad input at the API: the right status, an error with its cause and a hint, and no change."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import serving


@pytest.mark.parametrize(
    "name", ["", "a" * 300, "UPPER", "ünicode", "../x", "a b", "-a", "a/b", "a\u0000b", 7, None]
)
def test_names(server: serving.Server, name: object) -> None:
    with server.http() as http:
        before = http.get("/v1/sprites").json()["sprites"]
        answer = http.post("/v1/sprites", json={"name": name})
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["error"] or answer.json()["errors"]
        assert http.get("/v1/sprites").json()["sprites"] == before


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"{", {400}),
        (b"[]", {400, 422}),
        (b'{"name":"ok","config":{"ram_mb":"much"}}', {400, 422}),
        (b'{"name":"ok","config":{"storage_gb":100000000}}', {422}),
        (b'{"name":"ok","config":{"ram_mb":-1}}', {400, 422}),
        (b'{"name":"ok","image":"no-such-image"}', {404, 422}),
        (b'{"name":"ok","box":"spaceship"}', {400, 422}),
    ],
)
def test_bodies_of_create(server: serving.Server, body: bytes, statuses: set[int]) -> None:
    with server.http() as http:
        answer = http.post("/v1/sprites", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in statuses, answer.text
        assert "error" in answer.json() or "errors" in answer.json()
        assert http.get("/v1/sprites/ok").status_code == 404


def test_tokens(server: serving.Server) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        assert httpx.get(f"{server.url}/v1/sprites", headers=headers).status_code == 401
    made = server.cli("token", "create", "temporary")
    assert made.returncode == 0, made.stderr
    token = made.stdout.decode().strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{server.url}/v1/sprites", headers=headers).status_code == 200
    identity = token.split("/")[2]
    assert server.cli("token", "revoke", identity).returncode == 0
    assert httpx.get(f"{server.url}/v1/sprites", headers=headers).status_code == 401


def test_what_does_not_exist(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        assert http.get("/v1/sprites/nobody").status_code == 404
        assert http.delete("/v1/sprites/nobody").status_code == 404
        assert http.get(f"/v1/sprites/{sprite.name}/checkpoints/v99").status_code == 404
        assert (
            http.post(f"/v1/sprites/{sprite.name}/fork", json={"name": "x", "checkpoint": "v9"}).status_code
            == 404
        )
        assert http.post("/v1/sprites", json={"name": sprite.name}).status_code == 409
        assert http.get("/v1/nonsense").status_code == 404
        answer = http.post(f"/v1/sprites/{sprite.name}/checkpoints/v99/restore")
        assert '"type":"error"' in answer.text.replace(" ", "") or answer.status_code == 404


@pytest.mark.parametrize(
    "query",
    ["tty=maybe", "rows=0", "cols=99999999", "env=NOEQUALS", "dir=relative", "max_run_after_disconnect=soon"],
)
def test_exec_parameters(server: serving.Server, sprite: Any, query: str) -> None:
    with server.http() as http:
        answer = http.post(f"/v1/sprites/{sprite.name}/exec?cmd=true&{query}")
    assert answer.status_code == 400
    assert answer.json()["error"] and answer.json()["hint"]


def test_the_current_checkpoint_cannot_be_deleted(server: serving.Server, sprite: Any) -> None:
    serving.finished(sprite.create_checkpoint("one"))
    serving.finished(sprite.create_checkpoint("two"))
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}/checkpoints"
        assert http.delete(f"{path}/v2").status_code == 409
        assert http.delete(f"{path}/v1").status_code == 204
        assert http.delete(f"{path}/v1").status_code == 404


def test_openapi_names_every_endpoint(server: serving.Server) -> None:
    with server.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    for path in (
        "/v1/sprites",
        "/v1/sprites/{name}",
        "/v1/sprites/{name}/checkpoint",
        "/v1/sprites/{name}/fork",
    ):
        assert path in paths
