"""Sprites and checkpoints over REST: statuses, shapes, and every kind of bad input."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import Any

import httpx
import pytest

from .conftest import Running
from .double import CAPABILITY, IMAGE, TOKEN, USAGE


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["sprite-version"] == "v0.1.0"
    body: dict[str, Any] = response.json()
    assert body["code"] == code
    assert body["error"] and body["message"] and "hint" in body
    return body


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_create_get_list_update_delete(client: httpx.Client) -> None:
    made = client.post(
        "/v1/sprites",
        json={
            "name": "dev",
            "config": {"ram_mb": 512, "cpus": 2, "region": "ord"},
            "labels": ["ci"],
            "environment": {"A": "1"},
            "url_settings": {"auth": "public"},
            "wait_for_capacity": True,
            "something_newer": 1,
        },
    )
    assert made.status_code == 201
    sprite = made.json()
    assert sprite["id"].startswith("sprite-")
    assert sprite["status"] == "cold"
    assert sprite["config"]["ram_mb"] == 512
    assert sprite["labels"] == ["ci"]
    assert sprite["environment"] == {"A": "1"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", sprite["created_at"])
    assert client.get("/v1/sprites/dev").json() == sprite
    changed = client.put("/v1/sprites/dev", json={"labels": ["a", "b"], "url_settings": {"auth": "sprite"}})
    assert changed.status_code == 200
    assert changed.json()["labels"] == ["a", "b"]
    assert client.put("/v1/sprites/dev", json={"clear_labels": True}).json()["labels"] == []
    deleted = client.delete("/v1/sprites/dev")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert refused(client.get("/v1/sprites/dev"), 404, "not_found")["error"] == "sprite not found"
    refused(client.delete("/v1/sprites/dev"), 404, "not_found")


def test_list_pages_and_counts(client: httpx.Client) -> None:
    for number in range(53):
        client.post("/v1/sprites", json={"name": f"a-{number:02}"})
    client.post("/v1/sprites", json={"name": "b"})
    first = client.get("/v1/sprites", params={"max_results": 100, "prefix": "a-"}).json()
    assert len(first["sprites"]) == 50
    assert first["has_more"] is True
    rest = client.get(
        "/v1/sprites", params={"prefix": "a-", "continuation_token": first["next_continuation_token"]}
    ).json()
    assert [sprite["name"] for sprite in rest["sprites"]] == ["a-50", "a-51", "a-52"]
    assert rest["has_more"] is False
    assert rest["next_continuation_token"] is None
    assert (rest["running"], rest["warm"], rest["cold"], rest["name"]) == (0, 0, 54, "unit")
    assert rest["org"]["cold"] == 54
    assert len(client.get("/v1/sprites?max_results=-3").json()["sprites"]) == 1
    refused(client.get("/v1/sprites?max_results=many"), 400, "invalid_request")
    refused(client.get("/v1/sprites?continuation_token=%ff!"), 400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "invalid_request"),
        ("[]", 400, "invalid_request"),
        ("null", 400, "invalid_request"),
        ('"x"', 400, "invalid_request"),
        ("{}", 400, "invalid_request"),
        ('{"name": 5}', 400, "invalid_request"),
        ('{"name": "dev", "labels": "x"}', 400, "invalid_request"),
        ('{"name": "dev", "labels": [1]}', 400, "invalid_request"),
        ('{"name": "dev", "config": {"ram_mb": "2048"}}', 400, "invalid_request"),
        ('{"name": "dev", "config": {"ram_mb": 1.5}}', 400, "invalid_request"),
        ('{"name": "dev", "config": {"ram_mb": true}}', 400, "invalid_request"),
        ('{"name": "dev", "environment": {"A": 1}}', 400, "invalid_request"),
        ('{"name": "\\ud800"}', 400, "invalid_request"),
        ('{"name": "dev", "image": "nothing"}', 404, "not_found"),
        ('{"name": "dev", "config": {"ram_mb": 999999}}', 422, "invalid_value"),
        ('{"name": "../etc"}', 422, "invalid_value"),
        ('{"name": "Dev"}', 422, "invalid_value"),
        ('{"name": ""}', 422, "invalid_value"),
        ("[" * 100_000, 400, "invalid_request"),
        ('{"name": ' + "9" * 5000 + "}", 400, "invalid_request"),
        (b"\xff\xfe\x00", 400, "invalid_request"),
        ('{"name": "' + "a" * (1 << 20) + '"}', 413, "too_large"),
    ],
)
def test_create_refuses(
    client: httpx.Client, server: Running, body: str | bytes, status: int, code: str
) -> None:
    response = client.post("/v1/sprites", content=body, headers={"Content-Type": "application/json"})
    refused(response, status, code)
    assert server.engine.sprites == {}


def test_create_without_content_type_has_no_name(client: httpx.Client) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}):
        response = client.post("/v1/sprites", content='{"name": "dev"}', headers=headers)
        body = refused(response, 400, "invalid_request")
        assert body["error"] == "name is required"
        assert "application/json" in body["hint"]
    assert refused(client.post("/v1/sprites", json={}), 400, "invalid_request")["error"] == "name is required"
    assert refused(client.post("/v1/sprites"), 400, "invalid_request")["error"] == "name is required"


def test_several_mistakes_are_all_named(client: httpx.Client) -> None:
    body = refused(client.post("/v1/sprites", json={"name": 1, "labels": 2}), 400, "invalid_request")
    assert len(body["errors"]) == 2
    assert "name" in body["error"] and "labels" in body["error"]


def test_create_twice_and_when_full(client: httpx.Client, server: Running, sprite: str) -> None:
    refused(client.post("/v1/sprites", json={"name": sprite}), 409, "already_exists")
    server.engine.full = True
    refused(client.post("/v1/sprites", json={"name": "more"}), 507, "no_space")


def test_unknown_paths_and_methods(client: httpx.Client, sprite: str) -> None:
    for path in (
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/sprites/",
        "/v1/sprites/dev/nothing",
        "/v1/sprites/dev/control",
        "/docs",
    ):
        refused(client.get(path), 404, "no_such_endpoint")
    assert "GET" in refused_allow(client.patch("/v1/sprites/dev"))
    # The official Go client asks so for the version.
    assert client.head("/v1/sprites/dev/exec").headers["sprite-version"] == "v0.1.0"


def refused_allow(response: httpx.Response) -> str:
    refused(response, 405, "method_not_allowed")
    return response.headers["allow"]


@pytest.mark.parametrize(
    "name", ["..", "%2e%2e", "a%2fb", "a%00b", "%ff", "a b", "DEV", "x" * 300, "%0d%0aX: y"]
)
def test_hostile_names(client: httpx.Client, name: str) -> None:
    for path in ("", "/checkpoints", "/exec", "/fs/list"):
        response = client.get(
            httpx.URL(client.base_url).copy_with(raw_path=f"/v1/sprites/{name}{path}".encode())
        )
        assert response.status_code == 404, response.text
        assert response.json()["code"] in ("not_found", "no_such_endpoint")


def test_fork_and_stop(client: httpx.Client, sprite: str) -> None:
    client.post(f"/v1/sprites/{sprite}/checkpoint", json={})
    forked = client.post(f"/v1/sprites/{sprite}/fork", json={"name": "two", "checkpoint": "v1"})
    assert (forked.status_code, forked.json()["name"]) == (201, "two")
    refused(client.post(f"/v1/sprites/{sprite}/fork", json={"name": "two"}), 409, "already_exists")
    refused(
        client.post(f"/v1/sprites/{sprite}/fork", json={"name": "3", "checkpoint": "v9"}), 404, "not_found"
    )
    refused(client.post("/v1/sprites/nobody/fork", json={"name": "three"}), 404, "not_found")
    refused(client.post(f"/v1/sprites/{sprite}/fork", json={}), 400, "invalid_request")
    assert client.post(f"/v1/sprites/{sprite}/stop").json()["status"] == "cold"
    refused(client.post("/v1/sprites/nobody/stop"), 404, "not_found")


def test_update_refuses(client: httpx.Client, sprite: str) -> None:
    refused(client.put(f"/v1/sprites/{sprite}", json={}), 400, "invalid_request")
    refused(
        client.put(f"/v1/sprites/{sprite}", json={"labels": ["a"], "clear_labels": True}),
        400,
        "invalid_request",
    )
    refused(client.put("/v1/sprites/nobody", json={"labels": []}), 404, "not_found")


def test_checkpoint_stream_and_list(client: httpx.Client, sprite: str) -> None:
    base = f"/v1/sprites/{sprite}"
    assert [entry["id"] for entry in client.get(f"{base}/checkpoints").json()] == ["Current"]
    told = lines(client.post(f"{base}/checkpoint", json={"comment": "one"}))
    assert [line["type"] for line in told] == ["info", "info", "complete"]
    assert re.search(r"ID:\s*(\S+)", told[1]["data"]).group(1) == "v1"  # type: ignore[union-attr]
    assert told[2]["data"] == "Checkpoint v1 created successfully"
    assert all(line["time"] for line in told)
    lines(client.post(f"{base}/checkpoint"))
    lines(client.post(f"{base}/checkpoint", json={"comment": "auto"}))
    found = client.get(f"{base}/checkpoints").json()
    assert [entry["id"] for entry in found] == ["Current", "v1", "v2"]
    assert found[1]["comment"] == "one"
    assert found[2]["history"] == ["v1"]
    assert found[0]["source_id"] == "v3"
    every = client.get(f"{base}/checkpoints?includeAuto=true").json()
    assert [entry["id"] for entry in every] == ["Current", "v1", "v2", "v3"]
    assert every[3]["is_current"] is True
    since = client.get(f"{base}/checkpoints?history=v2").json()
    assert [entry["id"] for entry in since] == ["Current", "v2"]
    assert client.get(f"{base}/checkpoints/v2").json() == found[2]
    assert client.get(f"{base}/checkpoints/Current").json()["id"] == "Current"
    refused(client.get(f"{base}/checkpoints/v9"), 404, "not_found")
    refused(client.delete(f"{base}/checkpoints/v3"), 409, "conflict")
    refused(client.delete(f"{base}/checkpoints/Current"), 409, "conflict")
    assert client.delete(f"{base}/checkpoints/v1").status_code == 204
    refused(client.delete(f"{base}/checkpoints/v1"), 404, "not_found")


def test_restore_stream(client: httpx.Client, sprite: str) -> None:
    base = f"/v1/sprites/{sprite}"
    lines(client.post(f"{base}/checkpoint", json={}))
    told = lines(client.post(f"{base}/checkpoints/v1/restore"))
    assert [line["type"] for line in told] == ["info", "complete"]
    for id_ in ("v9", "Current", "%2e%2e"):
        (last,) = lines(client.post(f"{base}/checkpoints/{id_}/restore"))
        assert last["type"] == "error"
        assert last["error"].startswith("Failed to restore checkpoint: ")
        assert last["hint"]
    refused(client.post("/v1/sprites/nobody/checkpoints/v1/restore"), 404, "not_found")


def test_checkpoint_failures(client: httpx.Client, server: Running, sprite: str) -> None:
    refused(client.post("/v1/sprites/nobody/checkpoint", json={}), 404, "not_found")
    refused(client.post(f"/v1/sprites/{sprite}/checkpoint", json={"comment": 5}), 400, "invalid_request")
    server.engine.fail_checkpoints = True
    told = lines(client.post(f"/v1/sprites/{sprite}/checkpoint", json={}))
    assert told[-1]["type"] == "error"
    assert told[-1]["error"] == "Failed to create checkpoint: the disk broke"
    assert told[-1]["code"] == "broken"
    server.engine.full = True
    refused(client.post(f"/v1/sprites/{sprite}/checkpoint", json={}), 507, "no_space")


def test_tokens(client: httpx.Client, server: Running) -> None:
    made = client.post("/v1/tokens", json={"label": "laptop"})
    assert made.status_code == 201
    with httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {made.json()['token']}"}
    ) as other:
        assert other.get("/v1/sprites").status_code == 200
        found = client.get("/v1/tokens").json()["tokens"]
        assert [token["label"] for token in found] == ["first", "laptop"]
        assert all(set(token) == {"id", "label", "created_at"} for token in found)
        assert client.delete(f"/v1/tokens/{found[1]['id']}").status_code == 204
        refused(other.get("/v1/sprites"), 401, "unauthenticated")
    refused(client.delete("/v1/tokens/none"), 404, "not_found")
    assert client.post("/v1/tokens").status_code == 201


def test_host(client: httpx.Client, sprite: str) -> None:
    assert client.get("/v1/organization").json()["organization"]["slug"] == "unit"
    assert client.get("/v1/images").json()["images"] == [json.loads(IMAGE.to_json())]
    assert client.get("/v1/pool").json()["pool"] == asdict(USAGE)
    assert client.post("/v1/pool/trim").json() == {"trimmed_bytes": 7}


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", "Basic abc", "Bearer a b", f"bearer{TOKEN}", "Bearer \u00e9"],
)
def test_who_has_no_token_gets_nothing(server: Running, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as stranger:
        for method, path in (
            ("GET", "/v1/sprites"),
            ("POST", "/v1/sprites"),
            ("GET", "/nothing"),
            ("GET", "/v1/tokens"),
        ):
            response = stranger.request(method, path)
            refused(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"
        assert stranger.get("/openapi.json").status_code == 200


def test_two_tokens_are_none(server: Running) -> None:
    headers = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
    refused(httpx.get(f"{server.url}/v1/sprites", headers=headers), 401, "unauthenticated")


def test_the_socket_needs_no_token(server: Running) -> None:
    assert server.unix_socket.stat().st_mode & 0o777 == 0o600
    transport = httpx.HTTPTransport(uds=str(server.unix_socket))
    with httpx.Client(base_url="http://local", transport=transport) as local:
        assert local.get("/v1/tokens").status_code == 200
        refused(local.get("/v1/sprites", headers={"Authorization": "Bearer wrong"}), 401, "unauthenticated")


def test_a_capability_opens_its_own_checkpoints_only(
    client: httpx.Client, server: Running, sprite: str
) -> None:
    client.post("/v1/sprites", json={"name": "other"})
    headers = {"Authorization": f"Bearer {CAPABILITY}{sprite}"}
    transport = httpx.HTTPTransport(uds=str(server.unix_socket))
    with (
        httpx.Client(base_url=server.url, headers=headers, trust_env=False) as tcp,
        httpx.Client(base_url="http://local", transport=transport, headers=headers) as unix,
    ):
        for inside in (tcp, unix):
            assert inside.post(f"/v1/sprites/{sprite}/checkpoint", json={}).status_code == 200
            assert inside.get(f"/v1/sprites/{sprite}/checkpoints").status_code == 200
            assert inside.get(f"/v1/sprites/{sprite}/checkpoints/v1").status_code == 200
            assert inside.post(f"/v1/sprites/{sprite}/checkpoints/v1/restore").status_code == 200
            for method, path in (
                ("GET", "/v1/sprites"),
                ("GET", f"/v1/sprites/{sprite}"),
                ("DELETE", f"/v1/sprites/{sprite}"),
                ("POST", f"/v1/sprites/{sprite}/fork"),
                ("POST", f"/v1/sprites/{sprite}/exec"),
                ("GET", "/v1/sprites/other/checkpoints"),
                ("GET", f"/v1/sprites/other%2f..%2f{sprite}/checkpoints"),
                ("POST", "/v1/tokens"),
                ("GET", "/v1/tokens"),
                ("POST", "/v1/pool/trim"),
            ):
                refused(inside.request(method, path), 403, "forbidden")


def test_openapi_describes_all(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    operations = {
        (method.upper(), path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    for expected in (
        ("POST", "/v1/sprites"),
        ("POST", "/v1/sprites/{name}/fork"),
        ("POST", "/v1/sprites/{name}/checkpoint"),
        ("POST", "/v1/sprites/{name}/exec"),
        ("PUT", "/v1/sprites/{name}/fs/write"),
        ("DELETE", "/v1/tokens/{id}"),
    ):
        assert expected in operations
    for which, operation in operations.items():
        assert operation["summary"] and operation["description"], which
        assert "HTTPValidationError" not in json.dumps(operation), which
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorReply"}, (which, status)
    create = operations["POST", "/v1/sprites"]["requestBody"]["content"]["application/json"]["schema"]
    assert create["$ref"].endswith("CreateBody")
    schemas = described["components"]["schemas"]
    assert {"SpriteReply", "CheckpointReply", "ErrorReply", "Event"} <= set(schemas)
    referred = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(described)))
    assert referred <= set(schemas)
