"""The inner socket: an allow-list, handed on to the server with the sprite's capability."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pilot_client import Pilot


@pytest.fixture
def inner(pilot: Pilot) -> Iterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=str(pilot.directory / "inner.sock"))
    return httpx.AsyncClient(transport=transport, base_url="http://sprite", timeout=30)


@asynccontextmanager
async def server(pilot: Pilot, answer: bytes) -> AsyncIterator[list[bytes]]:
    """A server that says ``answer`` to everything, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        asked.append(head + await reader.readexactly(int(length.split(b":")[1])))
        writer.write(answer)
        await writer.drain()
        writer.close()

    path = pilot.directory / "server.sock"
    listening = await asyncio.start_unix_server(serve, path)
    try:
        yield asked
    finally:
        listening.close()
        path.unlink(missing_ok=True)  # Python 3.13 and later do it themselves


NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"


async def test_a_checkpoint_is_asked_for_with_the_capability(pilot: Pilot, inner: httpx.AsyncClient) -> None:
    lines = b'{"type":"info"}\n{"type":"complete"}\n'
    async with server(pilot, NDJSON + lines) as asked:
        answer = await inner.post(
            "/v1/checkpoint", json={"comment": "x"}, headers={"Authorization": "Bearer mine"}
        )
    assert answer.status_code == 200
    assert answer.content == lines
    assert answer.headers["content-type"] == "application/x-ndjson"
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/sprites/one/checkpoint HTTP/1.1\r\n")
    assert b"Bearer the-capability" in head
    assert b"mine" not in head
    assert json.loads(body) == {"comment": "x"}


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("GET", "/v1/checkpoints?includeAuto=true", b"GET /v1/sprites/one/checkpoints?includeAuto=true "),
        ("GET", "/v1/checkpoints/v1", b"GET /v1/sprites/one/checkpoints/v1 "),
        ("POST", "/v1/checkpoints/v1/restore", b"POST /v1/sprites/one/checkpoints/v1/restore "),
    ],
)
async def test_what_is_handed_on(
    pilot: Pilot, inner: httpx.AsyncClient, method: str, path: str, target: bytes
) -> None:
    async with server(pilot, NDJSON) as asked:
        assert (await inner.request(method, path)).status_code == 200
    assert asked[0].startswith(target)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/exec?cmd=id",
        "/fs/read?path=/etc/passwd",
        "/pilot/status",
        "/v1/sprites",
        "/v1/checkpoints/..%2f..%2fother%2fcheckpoints",
        "/v1/checkpoints/%2e%2e/other",
        "/v1/checkpoint/../../other/checkpoint",
    ],
)
async def test_nothing_else_is(pilot: Pilot, inner: httpx.AsyncClient, path: str) -> None:
    async with server(pilot, NDJSON) as asked:
        answer = await inner.get(path)
    assert answer.status_code in (404, 405)
    assert answer.json()["hint"]
    assert not asked


@pytest.mark.parametrize(
    "id",
    [
        "v1%3Fa=b",
        "v1%23",
        "v1%20",
        pytest.param("%2e%2e"),
    ],
)
async def test_an_id_is_one_segment_of_the_path(pilot: Pilot, inner: httpx.AsyncClient, id: str) -> None:
    async with server(pilot, NDJSON) as asked:
        await inner.post(f"/v1/checkpoints/{id}/restore")
    for request in asked:
        segments = request.split(b" ")[1].split(b"/")
        assert segments[:5] == [b"", b"v1", b"sprites", b"one", b"checkpoints"]
        assert segments[6:] == [b"restore"]
        assert segments[5] not in (b".", b"..")
        assert b"?" not in segments[5]
        assert b"#" not in segments[5]


async def test_without_a_server_it_says_so(inner: httpx.AsyncClient) -> None:
    answer = await inner.get("/v1/checkpoints")
    assert answer.status_code == 503
    assert answer.json()["hint"]


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_a_server_that_breaks_off_is_503(pilot: Pilot, inner: httpx.AsyncClient, answer: bytes) -> None:
    async with server(pilot, answer):
        assert (await inner.get("/v1/checkpoints")).status_code == 503


async def test_a_large_body_is_refused(inner: httpx.AsyncClient) -> None:
    assert (await inner.post("/v1/checkpoint", content=b"x" * 200_000)).status_code == 413


async def test_there_are_no_websockets(inner: httpx.AsyncClient) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    assert (await inner.get("/exec?cmd=id", headers=upgrade)).status_code in (403, 404)
