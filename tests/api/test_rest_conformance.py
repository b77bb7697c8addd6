"""Sprites, errors, organization and tokens, row by row of the API's reference, by the clients that are published."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from sprites import SpritesClient
from sprites.exceptions import APIError, AuthenticationError, NotFoundError, SpriteError
from sprites.types import ListOptions, SpriteConfig, URLSettings
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves

NewName = Callable[[], str]
TIMES = ("created_at", "updated_at")
# As Go reads them: RFC 3339 with a zone.
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@pytest.fixture(scope="module")
def http(server: serving.Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


# Creating


@proves("sprites: create, 201 and the whole object", PLAIN)
def test_create(http: httpx.Client, new_name: NewName) -> None:
    name = new_name()
    answer = http.post("/v1/sprites", json={"name": name, "wait_for_capacity": True, "runtime": "default"})
    assert answer.status_code == 201
    sprite = answer.json()
    assert re.fullmatch(r"sprite-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sprite["id"])
    assert (sprite["name"], sprite["status"], sprite["labels"], sprite["environment"]) == (
        name,
        "cold",
        [],
        {},
    )
    assert sprite["url_settings"] == {"auth": "sprite", "private_access": "org_users"}
    for key in ("organization", "version", "environment_version"):
        assert isinstance(sprite[key], str) and sprite[key], key
    assert {"url", "primary_region", "bucket_name"} <= sprite.keys()
    assert {"ram_mb", "cpus", "storage_gb"} <= sprite["config"].keys()
    assert all(type(sprite["config"][key]) is int for key in ("ram_mb", "cpus", "storage_gb"))
    assert (sprite["last_running_at"], sprite["last_warming_at"]) == (None, None)
    assert http.get(f"/v1/sprites/{name}").json() == sprite
    assert http.delete(f"/v1/sprites/{name}").status_code == 204


@proves("sprites: config in whole numbers, whatever was asked for", PLAIN)
def test_whole_numbers(http: httpx.Client, new_name: NewName) -> None:
    name = new_name()
    made = http.post("/v1/sprites", json={"name": name, "config": {"cpus": 1.5}})
    # The Go client cannot read "1.5", nor even "1.0", where it expects an int, and loses the whole answer.
    assert '"cpus":2,' in made.text.replace(" ", "") and made.json()["config"]["cpu_limit"] == 1.5
    assert http.delete(f"/v1/sprites/{name}").status_code == 204


@proves("sprites: every time is RFC 3339", PLAIN)
def test_times(server: serving.Server, http: httpx.Client, sprite: Any) -> None:
    serving.run(sprite, "true")
    serving.finished(sprite.create_checkpoint("one"))
    found = http.get(f"/v1/sprites/{sprite.name}").json()
    times = [found[key] for key in (*TIMES, "last_running_at")]
    times += [each["create_time"] for each in http.get(f"/v1/sprites/{sprite.name}/checkpoints").json()]
    times.append(http.get(f"/v1/sprites/{sprite.name}/check").json()["checked_at"])
    for time in times:
        assert RFC_3339.fullmatch(time), time
        assert datetime.fromisoformat(time).tzinfo is not None


CONFIG = {"ram_mb": 512, "cpus": 1, "storage_gb": 5}


@proves("sprites: create with config, labels, url_settings", PYTHON)
def test_create_with_everything_python(server: serving.Server, http: httpx.Client, new_name: NewName) -> None:
    sprite = server.client().create_sprite(
        new_name(),
        config=SpriteConfig(ram_mb=512, cpus=1, storage_gb=5, region="ord"),
        url_settings=URLSettings(auth="public"),
        labels=["ci", "team-a"],
        wait_for_capacity=True,
    )
    try:
        assert (sprite.labels, sprite.url_settings.auth) == (["ci", "team-a"], "public")
        found = http.get(f"/v1/sprites/{sprite.name}").json()
        assert {key: found["config"][key] for key in CONFIG} == CONFIG
    finally:
        sprite.delete()


@proves("sprites: create with config, labels, url_settings", JAVASCRIPT)
@proves("sprites: create with environment", JAVASCRIPT)
def test_create_with_everything_javascript(server: serving.Server, sprite: Any, new_name: NewName) -> None:
    script = """
        const made = await client.createSprite(args.name, {
            config: {ramMB: 512, cpus: 1, storageGB: 5, region: "ord"}, environment: {GREETING: "hello", camelCase: "1"},
            labels: ["ci"], urlSettings: {auth: "public", privateAccess: "admins"}, waitForCapacity: true,
        });
        say([made.name, made.status, made.labels, made.urlSettings, made.createdAt instanceof Date, made.organizationName]);
        say([made.config.ramMB, made.config.cpus, made.config.storageGB, made.environment]);
        say((await made.execFile("sh", ["-c", "echo $GREETING $camelCase"])).stdout);
        await made.delete();
    """
    name = new_name()
    organization = server.token.split("/")[0]
    assert nodejs.run(server, sprite, script, name=name) == [
        [name, "cold", ["ci"], {"auth": "public", "privateAccess": "admins"}, True, organization],
        [512, 1, 5, {"GREETING": "hello", "camelCase": "1"}],
        "hello 1\n",
    ]


@proves("sprites: a name that is taken is 409", PYTHON)
def test_a_name_that_is_taken_python(server: serving.Server, sprite: Any) -> None:
    with pytest.raises(SpriteError, match=r"status 409.*exists already"):
        server.client().create_sprite(sprite.name)


@proves("sprites: a name that is taken is 409", JAVASCRIPT)
def test_a_name_that_is_taken_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        try { await client.createSprite(sprite.name); } catch (error) { say([error.statusCode, error.message]); }
    """
    [(status, message)] = nodejs.run(server, sprite, script)
    assert status == 409 and sprite.name in message


@proves("sprites: a body without Content-Type is 400 'name is required'", PLAIN)
def test_create_without_a_content_type(http: httpx.Client, new_name: NewName) -> None:
    name = new_name()
    answer = http.post("/v1/sprites", content=json.dumps({"name": name}))
    assert (answer.status_code, answer.json()["error"]) == (400, "name is required")
    assert http.get(f"/v1/sprites/{name}").status_code == 404


# Looking


@proves("sprites: get, 404 for none", PYTHON)
def test_get_python(server: serving.Server, sprite: Any) -> None:
    found = server.client().get_sprite(sprite.name)
    assert (found.name, found.status, found.id) == (sprite.name, "cold", sprite.id)
    for name in ("nobody", "a/../b", "\u00fc", "%2e%2e", ".."):
        with pytest.raises(NotFoundError):
            server.client().get_sprite(name)


@proves("sprites: get, 404 for none", JAVASCRIPT)
def test_get_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        const found = await client.getSprite(sprite.name);
        say([found.name, found.status, found.updatedAt instanceof Date, typeof found.version]);
        for (const name of ["nobody", "a/../b", "\u00fc", "%2e%2e"])
            try { await client.getSprite(name); } catch (error) { say(error.statusCode); }
    """
    assert nodejs.run(server, sprite, script) == [[sprite.name, "cold", True, "string"], 404, 404, 404, 404]


@proves("sprites: cold when new, running on the first request", PLAIN)
def test_the_first_request_wakes(http: httpx.Client, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}"
    assert http.get(path).json()["status"] == "cold"
    assert http.get(f"{path}/exec").json() == {"count": 0, "sessions": []}
    assert http.get(path).json()["status"] == "running"


@pytest.fixture(scope="module")
def many(http: httpx.Client) -> Iterator[list[str]]:
    names = [f"many-{number:02}" for number in range(53)]
    for name in names:
        assert http.post("/v1/sprites", json={"name": name}).status_code == 201
    yield names
    for name in names:
        http.delete(f"/v1/sprites/{name}")


@proves("sprites: list by prefix, page by page", PYTHON)
def test_list_python(server: serving.Server, many: list[str]) -> None:
    client = server.client()
    assert [each.name for each in client.list_all_sprites("many-")] == many
    page = client.list_sprites(ListOptions(prefix="many-", max_results=20))
    assert ([each.name for each in page.sprites], page.has_more) == (many[:20], True)
    page = client.list_sprites(
        ListOptions(prefix="many-", max_results=100, continuation_token=page.next_continuation_token)
    )
    assert ([each.name for each in page.sprites], page.has_more) == (many[20:], False)


@proves("sprites: list by prefix, page by page", JAVASCRIPT)
@proves("sprites: list, counts of all beside the page", JAVASCRIPT)
@proves("sprites: list with bulk_load", JAVASCRIPT)
def test_list_javascript(server: serving.Server, sprite: Any, many: list[str]) -> None:
    script = """
        say((await client.listAllSprites("many-")).map(each => each.name));
        const page = await client.listSprites({prefix: "many-", maxResults: 20});
        say([page.sprites.length, page.hasMore, typeof page.nextContinuationToken]);
        say([page.running + page.warm + page.cold >= 53, page.cold >= 53, page.organizationName]);
        const bulk = await client.listSprites({prefix: "many-", bulkLoad: true});
        say(bulk.sprites.map(each => each.name));
    """
    organization = server.token.split("/")[0]
    assert nodejs.run(server, sprite, script) == [
        many,
        [20, True, "string"],
        [True, True, organization],
        many[:50],
    ]


@proves("sprites: list, max_results beyond 50 is 50", PLAIN)
@proves("sprites: list, counts of all beside the page, and in org", PLAIN)
def test_list(http: httpx.Client, many: list[str]) -> None:
    page = http.get("/v1/sprites", params={"prefix": "many-", "max_results": 100}).json()
    assert len(page["sprites"]) == 50 and page["has_more"] is True
    assert all(each == http.get(f"/v1/sprites/{each['name']}").json() for each in page["sprites"][:2])
    assert page["org"] == {key: page[key] for key in page["org"]}
    assert {"name", "running", "warm", "cold", "running_limit", "warm_limit"} <= page["org"].keys()
    last = http.get(
        "/v1/sprites", params={"prefix": "many-", "continuation_token": page["next_continuation_token"]}
    ).json()
    assert (len(last["sprites"]), last["has_more"], last["next_continuation_token"]) == (3, False, None)
    assert len(http.get("/v1/sprites?max_results=0").json()["sprites"]) == 1


@proves("sprites: watch, as NDJSON", JAVASCRIPT)
def test_watch_javascript(server: serving.Server, sprite: Any, new_name: NewName) -> None:
    script = """
        const made = await client.createSprite(args.name);
        const seen = [];
        for await (const event of await client.watchSprites({prefix: args.name})) {
            if (event.type === "heartbeat") continue;
            if (!seen.includes(event.status)) seen.push(event.status);
            if (seen.length === 1) await made.execFile("true");
            if (event.status === "running" && !args.going) { args.going = true; made.delete(); }
            if (event.status === "destroyed") {
                say([event.name, event.timestamp instanceof Date, typeof event.organization.running]);
                break;
            }
        }
        say(seen);
    """
    name = f"watched-{new_name()}"
    assert nodejs.run(server, sprite, script, name=name) == [
        [name, True, "number"],
        ["cold", "running", "destroyed"],
    ]


# Changing


@proves("sprites: update url_settings and labels; the rest stays", PYTHON)
def test_update_python(server: serving.Server, sprite: Any) -> None:
    client = server.client()
    changed = sprite.update(labels=["a", "b"])
    assert (changed.labels, changed.url_settings.auth) == (["a", "b"], "sprite")
    client.update_url_settings(sprite.name, URLSettings(auth="public"))
    found = client.get_sprite(sprite.name)
    assert (found.labels, found.url_settings.auth) == (["a", "b"], "public")
    assert sprite.update(labels=[]).labels == []


@proves("sprites: update url_settings and labels; the rest stays", JAVASCRIPT)
def test_update_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        say((await sprite.update({labels: ["a"]})).labels);
        await sprite.updateURLSettings({auth: "public", privateAccess: "admins"});
        const found = await client.getSprite(sprite.name);
        say([found.labels, found.urlSettings]);
        try { await sprite.update({urlSettings: {auth: "everybody"}}); } catch (error) { say(error.statusCode); }
    """
    settings = {"auth": "public", "privateAccess": "admins"}
    assert nodejs.run(server, sprite, script) == [["a"], [["a"], settings], 422]


@proves("sprites: update with clear_labels", PLAIN)
def test_clear_labels(http: httpx.Client, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}"
    assert http.put(path, json={"labels": ["x"]}).json()["labels"] == ["x"]
    answer = http.put(path, json={"clear_labels": True})
    assert (answer.status_code, answer.json()["labels"]) == (200, [])


@proves("sprites: upgrade", PYTHON)
def test_upgrade_python(server: serving.Server, sprite: Any) -> None:
    sprite.upgrade()
    server.client().upgrade_sprite(sprite.name)
    with pytest.raises(NotFoundError):
        server.client().upgrade_sprite("nobody")


@proves("sprites: upgrade", JAVASCRIPT)
@proves("sprites: restart", JAVASCRIPT)
@proves("sprites: check", JAVASCRIPT)
def test_health_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        const before = await sprite.check();
        say([before.spriteName, before.spriteId, before.status, before.reason === undefined]);
        await sprite.execFile("touch", ["/dev/shm/lost", "kept"]);
        const after = await sprite.check();
        say([after.status, after.checkedAt instanceof Date, typeof after.elapsed]);
        const done = await sprite.restart();
        say([done.spriteName, typeof done.machineId, typeof done.message]);
        say((await sprite.execFile("ls", ["/dev/shm", "/home/sprite/kept"])).stdout);
        await sprite.upgrade();
        for (const work of ["checkSprite", "restartSprite", "upgradeSprite"])
            try { await client[work]("nobody"); } catch (error) { say(error.statusCode); }
    """
    assert nodejs.run(server, sprite, script) == [
        [sprite.name, sprite.id, "hibernated", True],
        ["healthy", True, "number"],
        [sprite.name, "string", "string"],
        "/home/sprite/kept\n\n/dev/shm:\n",
        404,
        404,
        404,
    ]


# Deleting


@proves("sprites: delete, 204, then 404", PLAIN)
@proves("sprites: a name that comes again has a new id, and none of the old one's data", PLAIN)
def test_delete(server: serving.Server, http: httpx.Client, new_name: NewName) -> None:
    name = new_name()
    path = f"/v1/sprites/{name}"
    first = http.post("/v1/sprites", json={"name": name}).json()
    old = server.client().sprite(name)
    serving.run(old, "echo old > file")
    serving.finished(old.create_checkpoint("old"))
    answer = http.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for method in ("GET", "DELETE"):
        assert http.request(method, path).status_code == 404
    again = http.post("/v1/sprites", json={"name": name}).json()
    assert again["id"] != first["id"]
    assert [each["id"] for each in http.get(f"{path}/checkpoints").json()] == ["Current"]
    assert serving.run(server.client().sprite(name), "ls") == ""
    assert http.delete(path).status_code == 204


@proves("sprites: delete", PYTHON)
def test_delete_python(server: serving.Server, new_name: NewName) -> None:
    client = server.client()
    sprite = client.create_sprite(new_name())
    sprite.delete()
    with pytest.raises(NotFoundError):
        client.get_sprite(sprite.name)
    with pytest.raises(NotFoundError):
        client.delete_sprite(sprite.name)


@proves("sprites: delete", JAVASCRIPT)
def test_delete_javascript(server: serving.Server, sprite: Any, new_name: NewName) -> None:
    script = """
        const made = await client.createSprite(args.name);
        await made.delete();
        try { await client.getSprite(args.name); } catch (error) { say(error.statusCode); }
        try { await client.deleteSprite(args.name); } catch (error) { say(error.statusCode); }
    """
    assert nodejs.run(server, sprite, script, name=new_name()) == [404, 404]


# Errors and headers


@proves("errors: 401 without a good token, by REST and by WebSocket", PYTHON)
def test_strangers_python(server: serving.Server, sprite: Any) -> None:
    stranger = SpritesClient("wrong", base_url=server.url)
    with pytest.raises(AuthenticationError):
        stranger.list_sprites()
    with pytest.raises(APIError) as refused:
        stranger.sprite(sprite.name).run("true")
    assert refused.value.status_code == 401


@proves("errors: 401 without a good token, by REST and by WebSocket", JAVASCRIPT)
def test_strangers_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        const stranger = new SpritesClient("wrong", {baseURL: url});
        try { await stranger.listSprites(); } catch (error) { say(error.statusCode); }
        say((await fails(stranger.sprite(sprite.name).execFile("true"))) !== null);
    """
    assert nodejs.run(server, sprite, script) == [401, True]


@proves("errors: 401 at every endpoint", PLAIN)
def test_strangers(server: serving.Server, sprite: Any) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert len(paths) > 30
    for path, methods in paths.items():
        for method in methods:
            answer = httpx.request(method, server.url + path.replace("{name}", sprite.name))
            assert answer.status_code == 401 and answer.json()["error"], (method, path)
    for rest in ("exec?cmd=true", "exec/1", "control", "proxy", "ports/watch", "fs/watch"):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/{rest}")
        assert refused.value.response.status_code == 401, rest


@proves("headers: Sprite-Version on every answer, refusals and upgrades too", PLAIN)
@proves("headers: X-Sprite-Capabilities lists signal when a command's socket opens", PLAIN)
def test_headers(server: serving.Server, http: httpx.Client, sprite: Any) -> None:
    path = f"/v1/sprites/{sprite.name}"
    answers = [http.get(path), http.get("/v1/nothing"), http.delete("/v1/sprites/nobody")]
    answers += [http.get(f"{path}/exec"), http.post(f"{path}/exec?tty=true"), http.head(path)]
    answers.append(httpx.get(f"{server.url}/v1/sprites"))
    versions = {answer.headers["Sprite-Version"] for answer in answers}
    headers = {"Authorization": f"Bearer {server.token}"}
    with connect(
        f"{server.url.replace('http', 'ws')}{path}/exec?cmd=true", additional_headers=headers
    ) as socket:
        assert socket.response is not None
        versions.add(socket.response.headers["Sprite-Version"])
        assert "signal" in socket.response.headers["X-Sprite-Capabilities"].split(",")
    # A release, from which on clients attach by path.
    [version] = versions
    assert re.fullmatch(r"v\d+\.\d+\.\d+", version)


@pytest.fixture(scope="module")
def limited() -> Iterator[serving.Server]:
    with serving.server() as own:
        own.start("--max-running", "1", "--create-rate", "2")
        for name in ("a", "b"):
            own.client().create_sprite(name)
        serving.run(own.client().sprite("a"), "true")
        yield own


@proves("errors: structured 429, by REST and by WebSocket", PYTHON)
def test_limits_python(limited: serving.Server) -> None:
    """Of a refused creation this client shows the text only."""
    with pytest.raises(SpriteError, match=r"status 429.*sprite_creation_rate_limited.*\"limit\":2"):
        limited.client().create_sprite("c")
    with pytest.raises(APIError) as refused:
        limited.client().sprite("b").run("true")
    error = refused.value
    assert error.is_rate_limit_error() and error.is_concurrent_limit_exceeded() and error.limit == 1


@proves("errors: structured 429", JAVASCRIPT)
def test_limits_javascript(limited: serving.Server) -> None:
    script = """
        try { await client.createSprite("c"); } catch (error) {
            say([error.isRateLimitError(), error.isCreationRateLimited(), error.limit, error.windowSeconds]);
            say([error.retryAfterHeader === error.getRetryAfterSeconds(), error.rateLimitLimit, error.rateLimitRemaining]);
            say([error.rateLimitReset > Date.now() / 1000 - 1, error.currentCount]);
        }
        try { await client.sprite("b").execFileHTTP("true"); } catch (error) { say(error.isConcurrentLimitExceeded()); }
    """
    assert nodejs.run(limited, limited.client().sprite("a"), script) == [
        [True, True, 2, 60],
        [True, 2, 0],
        [True, 2],
        True,
    ]


# Organization and tokens


@proves("organization: slug, limits, what runs", PLAIN)
def test_organization(
    server: serving.Server, http: httpx.Client, limited: serving.Server, sprite: Any
) -> None:
    serving.run(sprite, "true")
    found = http.get("/v1/organization").json()["organization"]
    assert found["slug"] == server.token.split("/")[0] and found["sprites_enabled"] is True
    assert sprite.name in found["active_sprites"]
    assert {"max_sprites", "active_sprite_limit"} <= found.keys()
    with limited.http() as other:
        assert other.get("/v1/organization").json()["organization"]["active_sprite_limit"] == 1


@proves("tokens: minted with FlyV1", JAVASCRIPT)
def test_mint_javascript(server: serving.Server, sprite: Any) -> None:
    """The client has the hosted service's address in its code, so that one is led here."""
    script = """
        const real = globalThis.fetch;
        globalThis.fetch = (to, init) => real(to.replace("https://api.sprites.dev", url), init);
        const made = await SpritesClient.createToken(token, token.split("/")[0], "invitation");
        say([made, (await new SpritesClient(made, {baseURL: url}).getSprite(sprite.name)).name]);
        say(await fails(SpritesClient.createToken(token, "another")));
        say(await fails(SpritesClient.createToken("wrong", token.split("/")[0])));
    """
    (token, name), elsewhere, wrong = nodejs.run(server, sprite, script)
    assert name == sprite.name and len(token.split("/")) == 4
    assert "organization" in elsewhere and "token" in wrong
    assert server.cli("token", "revoke", token.split("/")[2]).returncode == 0
