"""Public URLs: both official clients say where they are, plain clients and the command open them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from sprites import URLSettings
from url_service import SCRIPT

import nodejs
import serving
from proof import COMMAND_LINE, JAVASCRIPT, PLAIN, PYTHON, proves


def start_service(sprite: Any, address: str = "127.0.0.1", port: int = 3000, delay: float = 0) -> None:
    """Have the sprite serve its URL; does not wait for it."""
    words = ["-c", SCRIPT, address, str(port), str(delay)]
    list(sprite.create_service("web", "python3", words, http_port=port, duration=0.01))


def url_host(server: serving.Server, name: str) -> str:
    return f"{name}.sprites.localhost:{server.port}"


@contextlib.contextmanager
def visitor(
    server: serving.Server, name: str, *, token: bool = True, **headers: str
) -> Iterator[httpx.Client]:
    """A client of a sprite's URL. Python's libraries do not know that localhost has names below it."""
    shown = {"Authorization": f"Bearer {server.token}"} if token else {}
    given = {"Host": url_host(server, name), **shown, **headers}
    with httpx.Client(base_url=server.url, headers=given, timeout=60, trust_env=False) as made:
        yield made


def opened(server: serving.Server, name: str, **options: Any) -> Any:
    """A WebSocket at a sprite's URL."""
    return websockets.connect(
        f"ws://{url_host(server, name)}/ws",
        host="127.0.0.1",
        port=server.port,
        additional_headers={"Authorization": f"Bearer {server.token}"},
        proxy=None,
        max_size=None,
        **options,
    )


@pytest.fixture(scope="module")
def served(server: serving.Server, shared: Any) -> Any:
    """A sprite whose URL leads to something."""
    start_service(shared)
    return shared


@proves("url: in the sprite, and its service is there", PYTHON)
def test_the_python_client_knows_it(server: serving.Server, served: Any) -> None:
    client = server.client()
    expected = f"http://{url_host(server, served.name)}"
    assert client.get_sprite(served.name).url == expected
    assert [each.url for each in client.list_sprites().sprites if each.name == served.name] == [expected]
    with visitor(server, served.name) as http:
        assert http.get("/x?y=1").json()["path"] == "/x?y=1"


@proves("url: in the sprite, and its service is there", JAVASCRIPT)
def test_the_javascript_client_knows_it(server: serving.Server, served: Any) -> None:
    script = """
        const found = await client.getSprite(sprite.name);
        say(found.url);
        const headers = { authorization: `Bearer ${args.token}`, host: new URL(found.url).host };
        const http = await import("node:http");
        const text = await new Promise((resolve, reject) => {
            http.get({ host: "127.0.0.1", port: new URL(found.url).port, path: "/js", headers }, (answer) => {
                let body = "";
                answer.on("data", (data) => { body += data; }).on("end", () => resolve(body));
            }).on("error", reject);
        });
        say(JSON.parse(text).path);
    """
    said = nodejs.run(server, served, script, token=server.token)
    assert said == [f"http://{url_host(server, served.name)}", "/js"]


@proves("url: cli url, and what curl finds there", COMMAND_LINE)
def test_the_command_shows_it(server: serving.Server, served: Any) -> None:
    shown = json.loads(server.cli("url", "-s", served.name, "--json").stdout)
    assert shown["url"] == f"http://{url_host(server, served.name)}"
    assert shown["url"] in server.cli("url", "-s", served.name).stdout.decode()
    assert shown["url"] in server.cli("info", served.name).stdout.decode()
    listed = json.loads(server.cli("list", "--json").stdout)
    assert shown["url"] in json.dumps(listed)
    curl = ["curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", shown["url"]]
    assert subprocess.run(curl, capture_output=True, text=True, check=False).stdout == "401"
    try:
        assert server.cli("url", "update", "-s", served.name, "--auth", "public").returncode == 0
        assert subprocess.run(curl, capture_output=True, text=True, check=False).stdout == "200"
    finally:
        assert server.cli("url", "update", "-s", served.name, "--auth", "sprite").returncode == 0
    assert subprocess.run(curl, capture_output=True, text=True, check=False).stdout == "401"


@proves("url: auth sprite takes a token, public everybody; the token stays outside", PYTHON)
def test_who_may(server: serving.Server, served: Any) -> None:
    client = server.client()
    with visitor(server, served.name, token=False) as http:
        assert http.get("/").status_code == 401
        client.update_url_settings(served.name, URLSettings(auth="public"))
        try:
            assert http.get("/").status_code == 200
            shown = http.get("/", headers={"Authorization": f"Bearer {server.token}", "X-Real-IP": "6.6.6.6"})
        finally:
            client.update_url_settings(served.name, URLSettings(auth="sprite"))
        assert http.get("/").status_code == 401
    with visitor(server, served.name) as http:
        for seen in (shown, http.get("/", headers={"Cookie": "mine=1"})):
            assert server.token not in seen.text and "uthorization" not in seen.text
    assert seen.json()["headers"]["cookie"] == "mine=1"
    forwarded = {name: value for name, value in seen.json()["headers"].items() if "forwarded" in name}
    host = url_host(server, served.name)
    assert forwarded == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-host": host,
        "x-forwarded-proto": "http",
    }
    assert seen.json()["headers"]["host"] == host


@proves("url: a revocation and a URL made private count from their answers on", PLAIN)
def test_what_is_remembered_lets_nobody_in(server: serving.Server, served: Any) -> None:
    with server.http() as api, visitor(server, served.name, token=False) as visit:
        for shows in ("token", "cookie"):
            made = api.post("/v1/tokens", json={"label": "visitor"}).json()["token"]
            shown = {"Authorization": f"Bearer {made}"}
            if shows == "cookie":
                entered = visit.post("/.sprite/login", data={"token": made, "next": "/"})
                shown = {"Cookie": entered.headers["set-cookie"].split(";")[0]}
                visit.cookies.clear()
            for _ in range(3):
                assert visit.get("/", headers=shown).status_code == 200
            assert api.delete(f"/v1/tokens/{made.split('/')[2]}").status_code == 204
            assert visit.get("/", headers=shown).status_code == 401
        for auth, status in (("public", 200), ("sprite", 401)) * 3:
            assert api.put(f"/v1/sprites/{served.name}", json={"url_settings": {"auth": auth}}).is_success
            for _ in range(3):
                assert visit.get("/").status_code == status


@proves("url: a request wakes the sprite, and waits for its service", PLAIN)
def test_from_cold(server: serving.Server, sprite: Any) -> None:
    start_service(sprite, delay=1.5)
    with server.http() as http, visitor(server, sprite.name) as visit:
        assert http.post(f"/v1/sprites/{sprite.name}/stop").json()["status"] == "cold"
        assert visit.get("/").status_code == 200
        assert http.get(f"/v1/sprites/{sprite.name}").json()["status"] == "running"


@proves("url: a service that was stopped stays so, and the answer says it", PLAIN)
def test_a_stopped_service(server: serving.Server, sprite: Any) -> None:
    start_service(sprite)
    with visitor(server, sprite.name) as visit:
        assert visit.get("/").status_code == 200
        list(sprite.stop_service("web"))
        refused = visit.get("/")
        assert (refused.status_code, refused.json()["code"]) == (502, "bad_gateway")
        assert "web is stopped" in refused.json()["error"]
        assert "sprite-env services start web" in refused.json()["hint"]
        assert sprite.get_service("web").state.status == "stopped"
        list(sprite.create_service("web", "false", http_port=3000, duration=0.01))
        failing = serving.until(
            lambda: (found := visit.get("/")).status_code == 502 and "exit code 1" in found.text and found
        )
        assert "services logs web" in failing.json()["hint"]


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "10.0.0.1", "::1", "::"])
@proves("url: port 8080 if no service has an HTTP port, on every address", PLAIN)
def test_wherever_a_program_listens(server: serving.Server, sprite: Any, address: str) -> None:
    with visitor(server, sprite.name) as visit:
        refused = visit.get("/")
        assert (refused.status_code, refused.json()["error"]) == (
            502,
            "nothing listens on port 8080 of the sprite",
        )
        page = visit.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 502 and "start a service with an HTTP port" in page.text
        # Without an HTTP port it is not waited for to listen, but it is known to have just been started.
        words = ["-c", SCRIPT, address, "8080", "1"]
        list(sprite.create_service("other", "python3", words, duration=0.01))
        assert visit.get("/").json()["path"] == "/"


@proves("url: open requests and WebSockets hold the sprite awake, a service alone does not", PLAIN)
def test_what_holds_it_awake(tmp_path: Path) -> None:
    with serving.server() as own:
        own.start("--idle", "1")
        sprite = own.client().create_sprite("rests")
        start_service(sprite)

        def is_warm() -> bool:
            return bool(http.get("/v1/sprites/rests").json()["status"] == "warm")

        with own.http() as http, visitor(own, "rests") as visit:
            assert visit.get("/").status_code == 200
            serving.until(is_warm, what="it to rest while its service runs")
            with visit.stream("GET", "/stream?60") as answer:
                for line in answer.iter_lines():
                    seen = http.get("/v1/sprites/rests").json()
                    assert seen["status"] == "running", line
                assert seen["awake_because"] == ["url GET /stream"]
                assert line == "line 59"
            serving.until(is_warm, what="it to rest after the request")

            async def quiet() -> None:
                async with opened(own, "rests") as connection:
                    for _ in range(2):
                        await asyncio.sleep(3)
                        seen = http.get("/v1/sprites/rests").json()
                        assert (seen["status"], seen["awake_because"]) == ("running", ["url WebSocket /ws"])
                    await connection.send("still there")
                    assert await connection.recv() == "still there"

            asyncio.run(quiet())
            serving.until(is_warm, what="it to rest after the WebSocket")
            # A login outlives the server that gave it, but not the key.
            entered = visit.post("/.sprite/login", data={"token": own.token, "next": "/"})
        cookie = entered.headers["set-cookie"].split(";")[0]
        for removed, status in ((False, 200), (True, 401)):
            own.stop()
            if removed:
                (own.data / "login.key").unlink()
            own.start("--idle", "1")
            with visitor(own, "rests", token=False, Cookie=cookie) as visit:
                assert visit.get("/").status_code == status
        own.stop()
        own.start("--url", "https://{name}.sprites.example.com:8443")
        assert own.client().get_sprite("rests").url == "https://rests.sprites.example.com:8443"
        with visitor(own, "rests", Host="rests.sprites.example.com") as visit:
            assert visit.get("/").json()["headers"]["x-forwarded-proto"] == "https"
            entered = visit.post("/.sprite/login", data={"token": own.token, "next": "/"})
            assert entered.headers["set-cookie"].startswith("__Host-spriggan=")
            assert entered.headers["set-cookie"].endswith("; Secure")
        with visitor(own, "rests") as visit:  # the other domain is the API's now
            assert visit.get("/").json()["code"] == "no_such_endpoint"


def test_a_wrong_url_is_refused(server: serving.Server, tmp_path: Path) -> None:
    refused = server.cli("serve", "--data", str(tmp_path), "--listen", ":0", "--url", "https://example.com")
    assert refused.returncode != 0
    assert (
        "{name}" in refused.stderr.decode()
        and "https://{name}.sprites.example.com" in refused.stderr.decode()
    )


@proves("url: WebSockets, with their subprotocol", PLAIN)
async def test_websockets(server: serving.Server, served: Any) -> None:
    async with opened(server, served.name, subprotocols=["chat"]) as connection:
        assert connection.subprotocol == "chat"
        for message in ("hello", b"x" * 1_000_000):
            await connection.send(message)
            assert await connection.recv() == message
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with opened(server, "nobody-here"):
            pass
    assert caught.value.response.status_code == 404


@proves("url: 100 requests and 20 WebSockets at once", PLAIN)
async def test_many_at_once(server: serving.Server, served: Any) -> None:
    headers = {"Host": url_host(server, served.name), "Authorization": f"Bearer {server.token}"}
    limits = httpx.Limits(max_connections=None)
    async with (
        contextlib.AsyncExitStack() as stack,
        httpx.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=120) as http,
    ):
        held = [await stack.enter_async_context(opened(server, served.name)) for _ in range(20)]
        answers = await asyncio.gather(*(http.get(f"/{number}") for number in range(100)))
        assert [answer.json()["path"] for answer in answers] == [f"/{number}" for number in range(100)]
        for number, connection in enumerate(held):
            await connection.send(str(number))
        assert [await connection.recv() for connection in held] == [str(number) for number in range(20)]
    with server.http() as api:
        serving.until(
            lambda: (
                not any("url" in why for why in api.get(f"/v1/sprites/{served.name}").json()["awake_because"])
            )
        )


def peak_kib(server: serving.Server) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@proves("url: bodies of any size, with constant memory", PLAIN)
def test_large_bodies(server: serving.Server, served: Any) -> None:
    size, chunk = 256 << 20, bytes(1 << 20)
    with visitor(server, served.name) as visit:
        visit.get("/")
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # the peak counts from here
        before = peak_kib(server)
        with visit.stream("GET", f"/bytes?{size}") as answer:
            assert sum(len(piece) for piece in answer.iter_bytes()) == size
        body = (chunk for _ in range(size >> 20))
        digest = visit.post("/", content=body, headers={"Content-Length": str(size)}).text
        expected = hashlib.sha256()
        for _ in range(size >> 20):
            expected.update(chunk)
        assert digest == expected.hexdigest()
        assert peak_kib(server) - before < 64 << 10


def test_a_connection_inside_is_used_again_in_one_life(server: serving.Server, sprite: Any) -> None:
    """And never after it: whoever answers then is asked on a connection of its own."""
    start_service(sprite)
    with server.http() as http, visitor(server, sprite.name) as visit:

        def peer() -> Any:
            return visit.get("/").json()["peer"]

        def used_again() -> Any:
            first, second = peer(), peer()
            return first == second and first

        def post(what: str) -> None:
            assert http.post(f"/v1/sprites/{sprite.name}/{what}").is_success

        list(sprite.create_checkpoint("before"))
        for end in (lambda: post("stop"), lambda: post("restart"), lambda: post("checkpoints/v1/restore")):
            serving.until(used_again, what="a connection to be used again")
            end()
            assert visit.get("/").status_code == 200
        serving.until(used_again, what="a connection to be used again")
        # Another program may serve the URL from some moment on.
        list(sprite.stop_service("web"))
        words = ["-c", SCRIPT, "127.0.0.1", "3001", "0"]
        sprite.delete_service("web")
        list(sprite.create_service("other", "python3", words, http_port=3001, duration=0.01))
        assert visit.get("/").json()["headers"]["host"] == url_host(server, sprite.name)


def test_a_sprite_that_goes_ends_its_connections(server: serving.Server, sprite: Any) -> None:
    """Nothing is left hanging when the sprite is stopped under an answer."""
    start_service(sprite)
    ended = threading.Event()

    def listen() -> None:
        with (
            contextlib.suppress(httpx.HTTPError),
            visitor(server, sprite.name) as visit,
            visit.stream("GET", "/stream?600") as answer,
        ):
            for _ in answer.iter_lines():
                begun.set()
        ended.set()

    begun = threading.Event()
    threading.Thread(target=listen, daemon=True).start()
    assert begun.wait(60)
    with server.http() as http:
        assert http.post(f"/v1/sprites/{sprite.name}/stop").status_code == 200
        assert ended.wait(30)
        time.sleep(0.1)
        assert http.get(f"/v1/sprites/{sprite.name}").json()["status"] == "cold"
