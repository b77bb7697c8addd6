"""The URLs of sprites: who gets in, what is passed on, and programs inside that say anything at all."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from spriggan.errors import Broken
from spriggan.server import gateway, kept

from .conftest import UPGRADE, Running, until
from .double import TOKEN
from .serviced import Handler, Service, pilot

HOST = "dev.sprites.localhost"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
HTML = {"Accept": "text/html,application/xhtml+xml"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def service(
    server: Running, sprite: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """What serves the sprite's URL: at first something that says hi."""
    monkeypatch.setattr(kept, "FOR_S", 60.0)  # however slow the machine is

    def say_hi(connection: socket.socket) -> None:
        made.head(connection)
        connection.sendall(OK)

    made = Service(say_hi)
    server.engine.pilot_socket = short_path / "connecting.sock"
    with pilot(server.engine.pilot_socket, lambda: made.port):
        yield made
    made.close()


@pytest.fixture
def browser(server: Running) -> Iterator[httpx.Client]:
    """A client of the sprite's URL, without a token."""
    with httpx.Client(base_url=server.url, headers={"Host": HOST}, trust_env=False, timeout=20) as made:
        yield made


def makes_public(server: Running) -> None:
    server.engine.sprites["dev"].url_settings["auth"] = "public"


def exchange(server: Running, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the server closes, or says nothing for a while."""
    with server.connect() as connection:
        connection.sendall(request)
        answer = b""
        connection.settimeout(3)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
        return answer


def request(*lines: str, host: str | None = HOST) -> bytes:
    fields = [*lines, *([f"Host: {host}"] if host else []), f"Authorization: Bearer {TOKEN}", "", ""]
    return "\r\n".join(fields).encode()


def log_in(browser: httpx.Client, following: str = "/", token: str = TOKEN) -> httpx.Response:
    return browser.post("/.sprite/login", data={"token": token, "next": following})


def cookie_of(response: httpx.Response) -> str:
    return response.headers["set-cookie"].split(";")[0]


# Who gets in


def test_a_private_url_takes_a_token(service: Service, browser: httpx.Client) -> None:
    refused = browser.get("/")
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "spriggan url update" in refused.json()["hint"]
    assert browser.get("/", headers={"Authorization": "Bearer spriggan/1/t1/wrong"}).status_code == 401
    assert browser.get("/", headers={"Authorization": f"Basic {TOKEN}"}).status_code == 401
    assert not service.requests
    assert browser.get("/", headers=AUTH).text == "hi"


def test_nobody_can_tell_which_names_there_are(service: Service, browser: httpx.Client) -> None:
    for headers in ({}, HTML, {"Authorization": "Bearer spriggan/1/t1/wrong"}, {"Cookie": "spriggan=a.1.b"}):
        for method, path in (("GET", "/"), ("POST", "/x"), ("GET", "/.sprite/login")):
            answers = [
                browser.request(method, path, headers={**headers, "Host": f"{name}.sprites.localhost"})
                for name in ("dev", "nobody", "a.b", "UPPER_case!", "x" * 100)
            ]
            assert len({(a.status_code, a.text, tuple(a.headers.keys())) for a in answers}) == 1
    wrong = {"token": "wrong", "next": "/"}
    answers = [
        browser.post("/.sprite/login", data=wrong, headers={"Host": f"{name}.sprites.localhost"})
        for name in ("dev", "nobody")
    ]
    assert answers[0].status_code == 401 and answers[0].text == answers[1].text
    known = browser.get("/", headers={**AUTH, "Host": "nobody.sprites.localhost"})
    assert (known.status_code, known.json()["error"]) == (404, "sprite not found")
    page = browser.get("/", headers={**AUTH, **HTML, "Host": "nobody.sprites.localhost"})
    assert page.status_code == 404 and "<h1>Not found</h1>" in page.text


def test_a_sprites_token_is_no_key_to_urls(service: Service, browser: httpx.Client) -> None:
    assert browser.get("/", headers={"Authorization": "Bearer capability-of-dev"}).status_code == 401


def test_every_path_is_the_sprites_own(server: Running, service: Service, browser: httpx.Client) -> None:
    for path in ("/v1/sprites", "/openapi.json", "/v1/../v1/tokens", "/%2e%2e/x", "//x", "/a%2Fb?q=%20&r"):
        assert exchange(server, request(f"GET {path} HTTP/1.1", "Connection: close")).endswith(b"hi")
        assert service.requests[-1].split(b" ")[1].decode() == path
    assert browser.get("/v1/sprites", headers={**AUTH, "Host": "sprites.localhost"}).json()["cold"] == 1


def test_a_browser_logs_in(service: Service, browser: httpx.Client) -> None:
    page = browser.get("/a?b=1&c=%22%3E", headers=HTML)
    assert page.status_code == 401
    assert 'action="/.sprite/login"' in page.text and 'value="/a?b=1&amp;c=%22%3E"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    again = log_in(browser, token="wrong")
    assert again.status_code == 401 and "not valid" in again.text and "set-cookie" not in again.headers
    entered = log_in(browser, "/a?b=1&c=%22%3E")
    assert (entered.status_code, entered.headers["location"]) == (303, "/a?b=1&c=%22%3E")
    attributes = entered.headers["set-cookie"].split("; ")[1:]
    assert attributes == ["Max-Age=604800", "Path=/", "HttpOnly", "SameSite=Lax"]
    assert "secret" not in cookie_of(entered)
    browser.cookies.clear()
    cookie = cookie_of(entered)
    assert browser.get("/", headers={"Cookie": f"mine=1; {cookie}; theirs=2"}).text == "hi"
    # Another sprite below the domain can have the browser send more of the same name.
    assert browser.get("/", headers={"Cookie": f"spriggan=x; {cookie}"}).text == "hi"
    assert browser.get("/", headers={"Cookie": cookie, "Authorization": "Basic YTpi"}).text == "hi"
    for seen, mine in zip(
        service.requests, (b"cookie: mine=1; theirs=2\r\n", b"", b"Basic YTpi"), strict=True
    ):
        assert mine in seen and b"spriggan" not in seen


@pytest.mark.parametrize(
    "following",
    [
        "//evil.com/",
        "https://evil.com",
        "/\\evil.com",
        "\\/evil.com",
        "/\t/evil.com",
        "/a\r\nSet-Cookie: x=1",
        "/ä",
        "evil",
        "",
        "/" + "x" * 3000,
        "/.sprite/login",
    ],
)
def test_a_login_leads_nowhere_else(service: Service, browser: httpx.Client, following: str) -> None:
    entered = log_in(browser, following)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    assert "x" not in entered.headers.get("set-cookie", "")[:8]


def test_a_login_is_good_for_its_sprite_only(
    service: Service, browser: httpx.Client, client: httpx.Client
) -> None:
    cookie = {"Cookie": cookie_of(log_in(browser))}
    browser.cookies.clear()
    assert client.post("/v1/sprites", json={"name": "other"}).status_code == 201
    assert browser.get("/", headers={**cookie, "Host": "other.sprites.localhost"}).status_code == 401
    assert client.get("/v1/sprites", headers={"Authorization": "", **cookie}).status_code == 401
    assert browser.get("/", headers=cookie).status_code == 200
    client.delete("/v1/sprites/dev")
    client.post("/v1/sprites", json={"name": "dev"})
    assert browser.get("/", headers=cookie).status_code == 401


def test_a_login_ends_with_its_token(service: Service, browser: httpx.Client, client: httpx.Client) -> None:
    made = client.post("/v1/tokens", json={"label": "x"}).json()
    cookie = {"Cookie": cookie_of(log_in(browser, token=made["token"]))}
    browser.cookies.clear()
    assert browser.get("/", headers=cookie).status_code == 200
    token_id = made["token"].split("/")[2]
    assert client.delete(f"/v1/tokens/{token_id}").status_code == 204
    assert browser.get("/", headers=cookie).status_code == 401


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Origin": f"http://{HOST}"}, 200),
        ("POST", {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 401),
        ("GET", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 401),
        ("POST", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 401),
        ("POST", {"Origin": "http://evil.sprites.localhost"}, 401),
        ("POST", {"Origin": "null"}, 401),
        ("POST", {"Origin": f"https://{HOST}"}, 401),
    ],
)
def test_another_sprites_page_cannot_use_a_login(
    service: Service, browser: httpx.Client, method: str, headers: dict[str, str], status: int
) -> None:
    cookie = cookie_of(log_in(browser))
    browser.cookies.clear()
    assert browser.request(method, "/", headers={**headers, "Cookie": cookie}).status_code == status
    with_token = browser.request(method, "/", headers={**headers, **AUTH})
    assert with_token.status_code == 200


def test_the_form_is_small_and_of_the_same_host(service: Service, browser: httpx.Client) -> None:
    evil = browser.post(
        "/.sprite/login", data={"token": TOKEN}, headers={"Origin": "http://evil.sprites.localhost"}
    )
    assert evil.status_code == 403 and "set-cookie" not in evil.headers
    assert browser.post("/.sprite/login", content=b"x" * 20_000).status_code == 413
    assert browser.post("/.sprite/login", content=b"\xff%ff&==&token").status_code == 401
    assert browser.put("/.sprite/login").status_code == 405
    assert not service.requests


def test_a_public_url_is_for_everybody(server: Running, service: Service, browser: httpx.Client) -> None:
    makes_public(server)
    own = {"Authorization": "Bearer of-the-program", "Cookie": "a=1"}
    assert browser.get("/", headers=own).text == "hi"
    assert b"Bearer of-the-program" in service.requests[-1] and b"a=1" in service.requests[-1]
    # Somebody who still sends the server's token must not give it to the program.
    assert browser.get("/", headers=AUTH).text == "hi"
    assert TOKEN.encode() not in service.requests[-1]


def test_what_ails_a_sprite_is_not_for_everybody(
    server: Running, service: Service, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.asynccontextmanager
    async def fails(name: str, reason: str):  # type: ignore[no-untyped-def]
        raise Broken("/srv/spriggan/secret is damaged")
        yield

    monkeypatch.setattr(server.engine, "awake", fails)
    makes_public(server)
    anybody = browser.get("/")
    assert anybody.status_code == 503 and "secret" not in anybody.text
    assert "secret" in browser.get("/", headers=AUTH).text


# What is passed on


def test_what_the_service_sees(server: Running, service: Service) -> None:
    answer = exchange(
        server,
        request(
            "POST /a%20b?c=d HTTP/1.1",
            "Connection: close, X-Hop, Host, Content-Length",
            "X-Hop: 1",
            "TE: trailers",
            "Upgrade: h2c",
            "Content-Length: 3",
            "X-Forwarded-For: 6.6.6.6",
            "X_Forwarded_Proto: gopher",
            "X-Forwarded-Host: evil.com",
            "Forwarded: for=6.6.6.6",
            "X-Real-IP: 6.6.6.6",
            "X-Mine: yes",
            "Cookie: a=1; b=2",
            host="DEV.sprites.localhost:1",
        )
        + b"abc",
    )
    assert answer.endswith(b"\r\n\r\nhi")
    [seen] = service.requests
    head, _, body = seen.partition(b"\r\n\r\n")
    first, *fields = head.split(b"\r\n")
    assert first == b"POST /a%20b?c=d HTTP/1.1"
    assert sorted(fields) == [
        b"connection: close",
        b"content-length: 3",
        b"cookie: a=1; b=2",
        b"host: DEV.sprites.localhost:1",
        b"x-forwarded-for: 127.0.0.1",
        b"x-forwarded-host: DEV.sprites.localhost:1",
        b"x-forwarded-proto: http",
        b"x-mine: yes",
    ]
    assert body in (b"abc", b"")


@pytest.mark.parametrize(
    "sent",
    [
        request("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked")
        + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        request("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 6") + b"abcdef",
        request("POST / HTTP/1.1", "Content-Length: 5, 5") + b"abcde",
        request("POST / HTTP/1.1", "Content-Length: +5") + b"abcde",
        request("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        request("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity")
        + b"0\r\n\r\n",
        request("POST / HTTP/1.1", "Transfer-Encoding : chunked") + b"0\r\n\r\n",
        request("POST / HTTP/1.1", "Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
        request("GET / HTTP/1.1", "X-Folded: a\r\n b: c"),
        request("GET / HTTP/1.1", "X-Bare: a\nX-Smuggled: b"),
        request("GET / HTTP/1.1", "X-Nul: a\0b"),
        request("GET / HTTP/1.1", f"Host: {HOST}"),
        request("GET / HTTP/1.1", "Host: other.sprites.localhost"),
        request("GET / HTTP/1.1", "Authorization: Basic YTpi"),
        request(f"CONNECT {HOST}:80 HTTP/1.1"),
        request("GET /\x01 HTTP/1.1"),
        request("GET /a b HTTP/1.1"),
        request("GET / HTTP/2.0"),
    ],
)
def test_requests_that_can_be_read_in_two_ways(server: Running, service: Service, sent: bytes) -> None:
    """Each is refused; or the service has got it as one request, in the only way left to read it."""
    answer = exchange(server, sent)
    status = int(answer.split(b" ")[1]) if answer else 400
    assert status in (200, 400, 401, 404, 431), answer
    for seen in service.requests:
        assert status == 200
        head = seen.partition(b"\r\n\r\n")[0].lower()
        assert b"smuggled" not in seen.partition(b"\r\n\r\n")[2]
        assert len(re.findall(rb"\r\n(content-length|transfer-encoding):", head)) <= 1
        assert head.count(b"\r\nhost:") == 1


def test_two_requests_are_two(server: Running, service: Service) -> None:
    """Kept alive and pipelined, each by a connection of its own inside."""
    one = request("POST /1 HTTP/1.1", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n"
    two = request("GET /2 HTTP/1.1", "Connection: close")
    answer = exchange(server, one + two)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert [seen.split(b" ")[1] for seen in service.requests] == [b"/1", b"/2"]


def test_a_wish_for_another_protocol(server: Running, service: Service) -> None:
    """As curl and Java ask for HTTP/2: answered in HTTP/1.1, and nothing of the body is lost or a request."""

    def echo(connection: socket.socket) -> None:
        head, _, body = service.head(connection).partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1]) if b"content-length" in head else 0  # type: ignore[index]
        while len(body) < length:
            body += connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body)

    service.handle = echo
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: dev.sprites.localhost\r\n\r\n"
    post = request("POST / HTTP/1.1", f"Content-Length: {len(smuggled)}", *upgrade)
    with server.connect() as connection:
        for head, body in ((request("GET / HTTP/1.1", *upgrade), b""), (post, smuggled), (post, smuggled)):
            connection.sendall(head)
            time.sleep(0.05)  # so that it comes in two reads
            connection.sendall(body)
            answer = b""
            while not answer.endswith(b"\r\n\r\n" + body):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert [seen.split(b" ")[1] for seen in service.requests] == [b"/"] * 3


def answers(service: Service, said: bytes) -> None:
    """Have the service say that to every request, and close."""

    def handle(connection: socket.socket) -> None:
        service.head(connection)
        connection.sendall(said)

    service.handle = handle


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", 304, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", 200, b"to the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"hi"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n"
            b"2;ext=1\r\nhi\r\n0\r\nTrailer: 1\r\n\r\n",
            200,
            b"hi",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi, and more than I said", 200, b"hi"),
        (b"HTTP/1.1 599 Mine\r\nContent-Length: 0\r\nDate: yesterday\r\n\r\n", 599, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\nhi", 200, b"hi"),
    ],
)
def test_answers_of_all_kinds(
    service: Service, browser: httpx.Client, said: bytes, status: int, body: bytes
) -> None:
    answers(service, said)
    for _ in range(2):  # on the same connection
        answer = browser.get("/", headers=AUTH)
        assert (answer.status_code, answer.content) == (status, body)
        assert len(answer.headers.get_list("date")) == 1
        assert "x-hop" not in answer.headers and "sprite-version" not in answer.headers


def test_head(service: Service, browser: httpx.Client) -> None:
    answers(service, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(2):
        answer = browser.head("/", headers=AUTH)
        assert (answer.status_code, answer.headers["content-length"]) == (200, "5000")


GARBAGE = [
    b"",
    b"\0\xff garbage\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nX-Evil: a\x01b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nX-Evil: a\0b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nX Evil: b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20) + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 200",
]


@pytest.mark.parametrize("said", GARBAGE, ids=range(len(GARBAGE)))
def test_what_is_no_answer_is_a_bad_gateway(service: Service, browser: httpx.Client, said: bytes) -> None:
    answers(service, said)
    answer = browser.get("/", headers=AUTH)
    assert (answer.status_code, answer.json()["code"]) == (502, "bad_gateway")
    page = browser.get("/", headers={**AUTH, **HTML})
    assert page.status_code == 502 and "<h1>Nothing answers here</h1>" in page.text


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nnonsense\r\n",
    ],
)
def test_a_broken_answer_is_cut_off(service: Service, browser: httpx.Client, said: bytes) -> None:
    """A client must not take a part for the whole."""
    answers(service, said)
    with pytest.raises(httpx.RemoteProtocolError):
        browser.get("/", headers=AUTH)


def test_nothing_listens(service: Service, browser: httpx.Client) -> None:
    service.close()
    answer = browser.get("/", headers=AUTH)
    assert (answer.status_code, answer.json()["error"]) == (502, "nothing listens")
    assert answer.json()["hint"] == "start something"
    page = browser.get("/", headers={**AUTH, **HTML})
    assert page.status_code == 502 and "start something" in page.text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}", 500),  # the pilot of an earlier server
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 500),
        (b"HTTP/1.1 503 Unavailable\r\nContent-Length: 27\r\n\r\n" + b'{"message":"m", "hint":"h"}', 503),
        (b"", 503),
    ],
)
def test_a_pilot_that_does_not_connect(
    server: Running, sprite: str, listener: socket.socket, browser: httpx.Client, said: bytes, status: int
) -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(said)

    threading.Thread(target=answer, daemon=True).start()
    assert browser.get("/", headers=AUTH).status_code == status


# Streams


def test_answers_arrive_as_they_are_made(service: Service, browser: httpx.Client) -> None:
    more = threading.Semaphore(0)

    def stream(connection: socket.socket) -> None:
        service.head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            connection.sendall(b"data: %d\n\n" % number)
            assert more.acquire(timeout=20)

    service.handle = stream
    with browser.stream("GET", "/", headers=AUTH) as answer:
        for number, text in enumerate(answer.iter_text()):
            assert text == f"data: {number}\n\n"
            more.release()


def test_uploads_wait_for_the_service(server: Running, service: Service) -> None:
    """What is not read is not taken: neither from the client, nor into memory."""
    read = threading.Event()
    digest = hashlib.sha256()

    def slow(connection: socket.socket) -> None:
        _, _, body = service.head(connection).partition(b"\r\n\r\n")
        assert read.wait(20)
        digest.update(body)
        left = size - len(body)
        while left:
            data = connection.recv(65536)
            digest.update(data)
            left -= len(data)
        connection.sendall(OK)

    size = 64 << 20
    service.handle = slow
    sent = 0
    with server.connect() as connection:
        connection.sendall(request("PUT / HTTP/1.1", f"Content-Length: {size}"))
        chunk = bytes(1 << 16)
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            while sent < size:
                sent += connection.send(chunk)
        assert sent < 32 << 20
        connection.settimeout(20)
        read.set()
        while sent < size:
            sent += connection.send(chunk[: size - sent])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert digest.digest() == hashlib.sha256(bytes(size)).digest()


def test_downloads_wait_for_the_client(server: Running, service: Service) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        service.head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(bytes(1 << 16))

    service.handle = flood
    with server.connect() as connection:
        connection.sendall(request("GET / HTTP/1.1"))
        before = -1
        while sent != before or not sent:
            before = sent
            time.sleep(0.5)
        assert sent < 32 << 20
        assert server.engine.awake_now["dev"] == 1
    # The client is gone, so the service is told, and the sprite let go (by the fixture).
    assert service.ended.acquire(timeout=20)


def test_a_client_that_leaves_ends_it(server: Running, service: Service) -> None:
    """Also while nothing is said, as in a long poll."""

    def silent(connection: socket.socket) -> None:
        service.head(connection)
        assert connection.recv(1) == b""

    service.handle = silent
    with server.connect() as connection:
        connection.sendall(request("GET / HTTP/1.1"))
        until(lambda: service.requests)
    assert service.ended.acquire(timeout=20)


def test_an_early_answer_to_a_long_upload(server: Running, service: Service) -> None:
    answers(service, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(request("POST / HTTP/1.1", "Content-Length: 10000000"))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_expect_100_continue(server: Running, service: Service) -> None:
    def wait_for_the_body(connection: socket.socket) -> None:
        if not service.head(connection).endswith(b"ab"):
            connection.recv(2)
        connection.sendall(OK)

    service.handle = wait_for_the_body
    with server.connect() as connection:
        connection.sendall(request("POST / HTTP/1.1", "Content-Length: 2", "Expect: 100-continue"))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ab")
        assert b"200 OK" in connection.recv(65536)
    assert b"expect" not in service.requests[0].lower()


def test_so_many_at_once(
    server: Running, service: Service, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_CONNECTIONS", 3)
    end = threading.Event()

    def hold(connection: socket.socket) -> None:
        service.head(connection)
        assert end.wait(20)
        connection.sendall(OK)

    service.handle = hold
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(server.connect()) for _ in range(3)]
        for connection in held:
            connection.sendall(request("GET / HTTP/1.1"))
        until(lambda: len(service.requests) == 3)
        refused = browser.get("/", headers=AUTH)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        end.set()
        for connection in held:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    until(lambda: browser.get("/", headers=AUTH).status_code == 200)


# Connections that are used again


def goes_on(service: Service, said: bytes = OK) -> list[socket.socket]:
    """Have the service say that to every request of a connection, and return all it gets."""
    made: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        made.append(connection)
        while service.head(connection):
            connection.sendall(said)

    service.handle = handle
    return made


def asked(service: Service) -> list[bytes]:
    """The first lines of what the service was asked; an end is none."""
    return [seen.split(b" HTTP")[0] for seen in service.requests if seen]


def test_a_connection_inside_is_used_again(service: Service, browser: httpx.Client) -> None:
    made = goes_on(service)
    for _ in range(5):
        assert browser.get("/", headers=AUTH).text == "hi"
    assert len(made) == 1 and not any(b"connection:" in seen for seen in service.requests)
    # What may not be done twice, or has a body that a service may overlook, has one of its own.
    for method, body in (("POST", b""), ("PUT", b"x"), ("GET", b"x"), ("HEAD", b"")):
        before = len(made)
        browser.request(method, "/", headers=AUTH, content=body)
        assert len(made) == before + 1
        [*_, head] = [
            seen for seen in service.requests if b" HTTP/1.1\r\n" in seen
        ]  # the body may come later
        assert b"\r\nconnection: close\r\n" in head
    before = len(made)
    assert browser.get("/", headers=AUTH).text == "hi"
    assert len(made) == before


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        OK + OK,
        OK + b"\r\n",
    ],
)
def test_what_is_not_used_again(service: Service, browser: httpx.Client, said: bytes) -> None:
    made = goes_on(service, said)
    for number in range(1, 4):
        assert browser.get("/", headers=AUTH).text == "hi"
        assert len(made) == number


def test_words_that_nobody_asked_for(service: Service, browser: httpx.Client) -> None:
    made = goes_on(service)
    assert browser.get("/", headers=AUTH).text == "hi"
    made[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    assert service.ended.acquire(timeout=30)
    assert browser.get("/", headers=AUTH).text == "hi"
    assert len(made) == 2


def test_another_run_has_other_connections(
    server: Running, service: Service, browser: httpx.Client, client: httpx.Client
) -> None:
    made = goes_on(service)
    for number, run in enumerate((1, 2, 0, 3), start=1):  # 0: it does not run, and is woken
        server.engine.run = run
        assert browser.get("/", headers=AUTH).text == "hi"
        assert len(made) == number
    client.delete("/v1/sprites/dev")
    client.post("/v1/sprites", json={"name": "dev"})
    assert browser.get("/", headers=AUTH).text == "hi"
    assert len(made) == 5


def test_a_connection_that_ends_with_a_request(service: Service, browser: httpx.Client) -> None:
    """The request is asked once more, unless some of an answer has come."""

    def answer_once(connection: socket.socket) -> None:
        service.head(connection)
        connection.sendall(OK)
        service.head(connection)
        connection.sendall(half)

    service.handle = answer_once
    half = b""
    assert [browser.get(path, headers=AUTH).text for path in ("/1", "/2")] == ["hi", "hi"]
    assert asked(service) == [b"GET /1", b"GET /2", b"GET /2"]
    half = b"HTTP/1.1 2"
    assert [browser.get(path, headers=AUTH).status_code for path in ("/3", "/4")] == [200, 502]
    assert asked(service)[3:] == [b"GET /3", b"GET /4"]


def test_a_connection_is_not_kept_for_long(
    service: Service, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "FOR_S", 0.3)
    made = goes_on(service)
    assert browser.get("/", headers=AUTH).text == "hi"
    assert service.ended.acquire(timeout=30)
    while not service.ended.acquire(blocking=False):  # also one that is used all the time
        assert browser.get("/", headers=AUTH).text == "hi"
    assert len(made) <= 3


def test_so_many_are_kept(
    server: Running, service: Service, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_OF_ONE", 1)
    together = threading.Barrier(2, timeout=20)

    def handle(connection: socket.socket) -> None:
        service.head(connection)
        together.wait()
        connection.sendall(OK)
        service.head(connection)

    service.handle = handle
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(2)]
        for connection in clients:
            connection.sendall(request("GET / HTTP/1.1"))
        for connection in clients:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    assert service.ended.acquire(timeout=30)


def test_a_kept_connection_lets_nobody_in(
    server: Running, service: Service, browser: httpx.Client, client: httpx.Client
) -> None:
    made = goes_on(service)
    token = client.post("/v1/tokens", json={"label": "x"}).json()["token"]
    shown = {"Authorization": f"Bearer {token}"}
    assert browser.get("/", headers=shown).text == "hi"
    assert client.delete(f"/v1/tokens/{token.split('/')[2]}").status_code == 204
    assert browser.get("/", headers=shown).status_code == 401
    for auth, status in (("public", 200), ("sprite", 401), ("public", 200)):
        assert client.put("/v1/sprites/dev", json={"url_settings": {"auth": auth}}).status_code == 200
        assert browser.get("/").status_code == status
    assert len(made) == 1


# WebSockets


def first_offered(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return offered[0] if offered else None


@contextlib.contextmanager
def websockets(service: Service, handle: Callable[[ServerConnection], None]) -> Iterator[None]:
    """A WebSocket server in place of the service."""
    with serve(handle, "127.0.0.1", 0, select_subprotocol=first_offered, max_size=None) as inner:
        thread = threading.Thread(target=inner.serve_forever, daemon=True)
        thread.start()
        service.port = inner.socket.getsockname()[1]
        yield
        inner.shutdown()


def opened(server: Running, headers: dict[str, str] | None = None, **options: object):  # type: ignore[no-untyped-def]
    return connect(
        f"ws://{HOST}:{server.port}/ws?x=1",
        sock=server.connect(),
        additional_headers=AUTH if headers is None else headers,
        proxy=None,
        max_size=None,
        **options,  # type: ignore[arg-type]
    )


def echo(connection: ServerConnection) -> None:
    assert connection.request is not None
    assert TOKEN not in str(connection.request.headers) and "spriggan=" not in str(connection.request.headers)
    for message in connection:
        connection.send(message)


def test_a_websocket(server: Running, service: Service) -> None:
    with websockets(service, echo):
        with opened(server, subprotocols=[Subprotocol("chat")]) as socket_:
            assert socket_.subprotocol == "chat"
            assert socket_.response is not None and "sprite-version" not in socket_.response.headers
            for message in ("hello", b"x" * (3 << 20)):
                socket_.send(message)
                assert socket_.recv() == message
            assert server.engine.awake_now["dev"] == 1
        until(lambda: not server.engine.awake_now["dev"])


def test_a_websocket_of_a_browser(server: Running, service: Service, browser: httpx.Client) -> None:
    cookie = {"Cookie": cookie_of(log_in(browser))}
    with websockets(service, echo):
        origin = f"http://{HOST}:{server.port}"
        with opened(server, {**cookie, "Origin": origin}) as socket_:
            socket_.send("hello")
            assert socket_.recv() == "hello"
        for headers in (
            {},
            {**cookie, "Origin": "http://evil.sprites.localhost"},
            {"Authorization": "Bearer spriggan/1/t1/wrong"},
        ):
            with pytest.raises(InvalidStatus) as caught:
                opened(server, headers)
            assert caught.value.response.status_code == 401


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200),
        (b"garbage\r\n\r\n", 502),
        (b"", 502),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 5, 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno", 502),
    ],
)
def test_a_websocket_that_is_none(server: Running, service: Service, said: bytes, status: int) -> None:
    answers(service, said)
    answer = exchange(server, request("GET /ws HTTP/1.1", *UPGRADE))
    assert answer.startswith(b"HTTP/1.1 %d " % status)


def test_a_websocket_where_nothing_listens(server: Running, service: Service) -> None:
    service.close()
    answer = exchange(server, request("GET /ws HTTP/1.1", *UPGRADE))
    assert answer.startswith(b"HTTP/1.1 502 ") and b"nothing listens" in answer


@pytest.mark.parametrize(
    "sent",
    [
        request("GET http://other.sprites.localhost/ HTTP/1.1", *UPGRADE),
        request("POST / HTTP/1.1", *UPGRADE),
        request("GET / HTTP/1.1", "Content-Length: 5", *UPGRADE) + b"abcde",
        request("GET / HTTP/1.1", "Host: other.sprites.localhost", *UPGRADE),
        request("GET / HTTP/1.1", "Authorization: Basic YTpi", *UPGRADE),
    ],
)
def test_upgrades_that_are_refused(server: Running, service: Service, sent: bytes) -> None:
    assert exchange(server, sent).startswith(b"HTTP/1.1 400 ")
    assert not service.requests


# Anything at all

FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Host",
                "Connection",
                "Content-Length",
                "Transfer-Encoding",
                "Upgrade",
                "Cookie",
                "Expect",
                "Origin",
                "Accept",
                "X-Y",
                "Sec-WebSocket-Key",
            ]
        ).map(str.encode)
        | st.binary(max_size=8),
        st.sampled_from(
            [
                HOST,
                "close",
                "0",
                "5",
                "chunked",
                "websocket",
                "upgrade",
                "spriggan=a.1." + "0" * 64,
                "text/html",
            ]
        ).map(str.encode)
        | st.binary(max_size=30),
    ),
    max_size=5,
)
TARGETS = st.sampled_from([b"/", b"*", b"http://x", b"//", b"/.sprite/login", b"/?" + b"x" * 999])


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from([b"GET", b"POST", b"OPTIONS", b"CONNECT", b"PRI", b"HEAD"])
    | st.binary(max_size=5),
    target=TARGETS | st.binary(max_size=20),
    host=st.just(HOST.encode()) | st.binary(max_size=30).map(lambda b: b + b".sprites.localhost"),
    fields=FIELDS,
    body=st.binary(max_size=40),
)
def test_no_head_is_too_strange(
    server: Running,
    service: Service,
    method: bytes,
    target: bytes,
    host: bytes,
    fields: list[tuple[bytes, bytes]],
    body: bytes,
) -> None:
    """Refused, answered, or the connection closed: never a failure, and the server goes on."""
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: " + host]
    lines += [name + b": " + value for name, value in fields]
    with server.connect() as connection:
        connection.sendall(
            b"\r\n".join([*lines, b"Authorization: Bearer " + TOKEN.encode(), b"", b""]) + body
        )
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                answer += data
    assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in answer
    handled: Handler = service.handle
    assert handled is not None
