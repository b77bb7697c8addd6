"""TCP into a sprite: the official JavaScript client's forwarding, and the wire itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import websockets

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, proves

ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.address_family = __import__("socket").AF_INET6 if ":" in sys.argv[1] else 2
server = socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Echo)
server.daemon_threads = True
server.serve_forever()
"""
# Takes one connection, reads it to its end, then answers with what it has got.
DIGEST = """
import hashlib, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, _ = listener.accept()
    digest, size, end = hashlib.sha256(), 0, "eof"
    try:
        while data := connection.recv(65536):
            digest.update(data)
            size += len(data)
        connection.sendall(f"{size} {digest.hexdigest()}".encode())
    except ConnectionResetError:
        end = "reset"
    except BrokenPipeError:
        pass
    connection.close()
    print(end, size, digest.hexdigest(), flush=True)
"""
# Sends for as long as somebody takes it, and says how much that was.
FLOOD = """
import socket
listener = socket.create_server(("127.0.0.1", 7004))
while True:
    connection, _ = listener.accept()
    sent = 0
    try:
        while True:
            sent += connection.send(b"x" * 65536)
            open("/tmp/sent", "w").write(str(sent))
    except OSError:
        pass
"""


def listen(sprite: Any, name: str, script: str, *args: str) -> None:
    """Run a server in the sprite, as a service; return when it listens."""
    sprite.create_service(name, "python3", ["-c", script, *args], http_port=int(args[-1]), duration=0.01)
    deadline = time.monotonic() + 30
    while sprite.list_services()[0].state.status != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextlib.asynccontextmanager
async def proxied(server: serving.Server, sprite: Any, **target: Any) -> AsyncIterator[Any]:
    url = f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/proxy"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with websockets.connect(url, additional_headers=headers, compression=None) as connection:
        await connection.send(json.dumps(target))
        yield connection


async def connected(connection: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await connection.recv())
    assert answer["status"] == "connected", answer
    return answer


@contextlib.contextmanager
def forwarding(server: serving.Server, sprite: Any, port: int, **options: Any) -> Iterator[int]:
    """The official JavaScript client's port forwarding; yields the local port."""
    script = """
        const session = await sprite.proxyPort(0, args.port, args.host);
        say(Number(session.localAddr().split(":")[1]));
        process.stdin.on("data", () => {}).on("end", () => { session.close(); process.exit(0); });
    """
    process = nodejs.start(server, sprite, script, port=port, **options)
    with process:
        assert process.stdin is not None and process.stdout is not None
        yield int(json.loads(process.stdout.readline()))
        process.stdin.close()
        assert process.wait(30) == 0


def local(port: int) -> socket.socket:
    return socket.create_connection(("localhost", port), timeout=60)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "10.0.0.1", "::1", "fdf::1"])
@proves("proxy: 127.0.0.1, ::1 and every other address", PLAIN)
async def test_wherever_a_program_listens(server: serving.Server, sprite: Any, address: str) -> None:
    listen(sprite, "echo", ECHO, address, "7000")
    hosts = [address] if address in ("10.0.0.1", "fdf::1") else ["localhost", address]
    for host in hosts:
        async with proxied(server, sprite, host=host, port=7000) as connection:
            assert (await connected(connection))["target"].endswith(":7000")
            await connection.send(b"hello")
            assert await connection.recv() == b"hello"


@proves("proxy: names as the sprite knows them", PLAIN)
async def test_a_name_is_looked_up_as_the_sprite_does(server: serving.Server, sprite: Any) -> None:
    listen(sprite, "echo", ECHO, "0.0.0.0", "7000")
    serving.run(sprite, "echo 127.0.0.1 my-database | sudo tee -a /etc/hosts")
    for host in ("my-database", sprite.name):
        async with proxied(server, sprite, host=host, port=7000) as connection:
            await connected(connection)
            await connection.send(b"hello")
            assert await connection.recv() == b"hello"
    async with proxied(server, sprite, host="no-such-name", port=7000) as connection:
        assert json.loads(await connection.recv())["status"] == "failed"


@pytest.mark.parametrize(
    "target",
    [
        {"port": 1},
        {"host": "localhost", "port": 0},
        {"host": "localhost"},
        {"host": "localhost", "port": "80"},
        {"host": 1, "port": 80},
        {"host": "$(reboot)", "port": 80},
        {"host": "--help", "port": 80},
        {"host": "192.168.1.1", "port": 80},
        {"host": "169.254.169.254", "port": 80},
    ],
)
@proves("proxy: a failed dial is another status, and closes", PLAIN)
async def test_what_cannot_be_is_refused_with_a_reason(
    server: serving.Server, sprite: Any, target: Any
) -> None:
    async with proxied(server, sprite, **target) as connection:
        answer = json.loads(await connection.recv())
        assert answer["status"] == "failed" and answer["error"] and answer["hint"]
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()


@pytest.mark.parametrize("first", [b"\x00\x01", "no json", "[]", "x" * 5000, "[" * 4000])
async def test_a_first_message_that_is_none_is_refused(
    server: serving.Server, sprite: Any, first: Any
) -> None:
    url = f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/proxy"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with websockets.connect(url, additional_headers=headers) as connection:
        await connection.send(first)
        assert json.loads(await connection.recv())["status"] == "failed"


@proves("proxy: the program's end is close 1000", PLAIN)
async def test_the_programs_end_closes_with_1000(server: serving.Server, sprite: Any) -> None:
    script = "import socket; l=socket.create_server(('127.0.0.1',7001))\n"
    script += "while True: c,_=l.accept(); c.sendall(b'x'*1000000); c.close()"
    sprite.create_service("s", "python3", ["-c", script, "7001"], http_port=7001, duration=1.0)
    async with proxied(server, sprite, port=7001) as connection:
        await connected(connection)
        received = b"".join([message async for message in connection])
    assert received == b"x" * 1_000_000 and connection.close_code == 1000


@proves("proxy: half-close (extension)", PLAIN)
async def test_half_close(server: serving.Server, sprite: Any) -> None:
    listen(sprite, "digest", DIGEST, "7002")
    data = bytes(range(256)) * 40_000
    async with proxied(server, sprite, port=7002, half_close=True) as connection:
        assert (await connected(connection))["half_close"] is True
        for start in range(0, len(data), 50_000):
            await connection.send(data[start : start + 50_000])
        await connection.send('{"type":"eof"}')
        answer = await connection.recv()
        assert answer == f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()
        assert json.loads(await connection.recv()) == {"type": "eof"}
        await connection.wait_closed()
    assert connection.close_code == 1000


@proves("proxy: the client's close is the end of its bytes, its loss a reset", PLAIN)
async def test_a_close_is_the_end_of_input_and_a_lost_client_is_not(
    server: serving.Server, sprite: Any
) -> None:
    listen(sprite, "digest", DIGEST, "7003")
    async with proxied(server, sprite, port=7003) as connection:
        await connected(connection)
        await connection.send(b"a" * 3_000_000)
    log = "cat /.sprite/logs/services/digest.log"
    whole = hashlib.sha256(b"a" * 3_000_000).hexdigest()
    await _until(lambda: f"eof 3000000 {whole}" in serving.run(sprite, log))
    async with proxied(server, sprite, port=7003) as connection:
        await connected(connection)
        await connection.send(b"b" * 100)
        await asyncio.sleep(0.3)
        connection.transport.abort()
    await _until(lambda: "reset 100" in serving.run(sprite, log))


@proves("proxy: back-pressure, both ways", PLAIN)
async def test_a_slow_reader_makes_the_other_side_wait(server: serving.Server, sprite: Any) -> None:
    sprite.create_service("flood", "python3", ["-c", FLOOD, "7004"], http_port=7004, duration=1.0)
    async with proxied(server, sprite, port=7004) as connection:
        await connected(connection)
        await connection.recv()
        sent = [int(serving.run(sprite, "cat /tmp/sent")) for _ in range(2) if not await asyncio.sleep(2)]
    assert sent[0] == sent[1] < 64 << 20
    deaf = "import socket, time; l=socket.create_server(('127.0.0.1',7005)); c,_=l.accept(); time.sleep(1000)"
    sprite.create_service("flood", "python3", ["-c", deaf, "7005"], http_port=7005, duration=1.0)
    async with proxied(server, sprite, port=7005) as connection:
        await connected(connection)
        count = 0
        with pytest.raises(TimeoutError):
            while True:
                async with asyncio.timeout(3):
                    await connection.send(b"x" * 65536)
                count += 1
        assert count * 65536 < 64 << 20
        connection.transport.abort()


@proves("proxy: wakes the sprite, waits for its service, holds it awake", PLAIN)
async def test_a_request_wakes_the_sprite_and_its_service(server: serving.Server, sprite: Any) -> None:
    listen(sprite, "echo", ECHO, "127.0.0.1", "7006")
    with server.http() as http:
        assert http.post(f"/v1/sprites/{sprite.name}/stop").status_code == 200
    async with proxied(server, sprite, port=7006) as connection:
        await connected(connection)
        await connection.send(b"awake")
        assert await connection.recv() == b"awake"
        with server.http() as http:
            because = http.get(f"/v1/sprites/{sprite.name}").json()["awake_because"]
        assert any("proxy" in reason for reason in because)


@proves("proxy: one socket per connection, forwarded", JAVASCRIPT)
def test_the_javascript_client_forwards(server: serving.Server, sprite: Any) -> None:
    serving.run(sprite, "echo from the sprite > index.html")
    sprite.create_service(
        "web", "python3", ["-m", "http.server", "8000", "--bind", "127.0.0.1"], http_port=8000, duration=1
    )
    with forwarding(server, sprite, 8000) as port:
        for _ in range(5):
            assert httpx.get(f"http://localhost:{port}/index.html").text == "from the sprite\n"


@proves("proxy: the client's close is the end of its bytes, its loss a reset", JAVASCRIPT)
def test_the_javascript_client_uploads_whole(server: serving.Server, sprite: Any) -> None:
    listen(sprite, "digest", DIGEST, "7007")
    data = bytes(range(256)) * 20_000
    with forwarding(server, sprite, 7007) as port:
        with local(port) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        wanted = f"eof {len(data)} {hashlib.sha256(data).hexdigest()}"
        deadline = time.monotonic() + 30
        while wanted not in (log := serving.run(sprite, "cat /.sprite/logs/services/digest.log || true")):
            assert time.monotonic() < deadline, log
            time.sleep(0.1)


@proves("proxy: a failed dial is another status, and closes", JAVASCRIPT)
def test_the_javascript_client_is_refused_politely(server: serving.Server, sprite: Any) -> None:
    with forwarding(server, sprite, 9) as port, local(port) as connection:
        assert connection.recv(1) == b""


@proves("proxy: many at once, nothing left of them", PLAIN)
def test_thirty_connections_at_once(server: serving.Server, sprite: Any) -> None:
    listen(sprite, "echo", ECHO, "127.0.0.1", "7008")

    async def one(number: int) -> None:
        data = bytes([number]) * (number * 10_000)
        async with proxied(server, sprite, port=7008) as connection:
            await connected(connection)

            async def send() -> None:
                for start in range(0, len(data), 30_000):
                    await connection.send(data[start : start + 30_000])

            sending = asyncio.create_task(send())
            received = b""
            while len(received) < len(data):
                received += await connection.recv()
            await sending
            assert received == data

    async def all_of_them() -> None:
        await asyncio.gather(*(one(number) for number in range(1, 31)))

    asyncio.run(all_of_them())
    # Nothing is left of them in the sprite.
    deadline = time.monotonic() + 15
    while serving.run(sprite, "ss -Htn state established sport = :7008 2>/dev/null | wc -l") != "0":
        assert time.monotonic() < deadline
        time.sleep(0.2)


@proves("ports/watch: port_list, port_closed", PLAIN)
async def test_ports_are_watched(server: serving.Server, sprite: Any) -> None:
    listen(sprite, "echo", ECHO, "127.0.0.1", "7009")
    url = f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/ports/watch"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with websockets.connect(url, additional_headers=headers) as watch:
        listed = json.loads(await watch.recv())
        pid = sprite.list_services()[0].state.pid
        assert listed == {
            "type": "port_list",
            "ports": [{"type": "port_opened", "port": 7009, "address": "127.0.0.1", "pid": pid}],
        }
        sprite.delete_service("echo")
        async with asyncio.timeout(20):
            closed = json.loads(await watch.recv())
        assert closed == {"type": "port_closed", "port": 7009, "address": "127.0.0.1", "pid": pid}


@proves("ports/watch: port_list, port_opened, port_closed", JAVASCRIPT)
def test_the_javascript_client_watches_ports(server: serving.Server, sprite: Any) -> None:
    script = """
        const watcher = await sprite.watchPorts();
        say(await watcher.next());
        const web = ["-m", "http.server", "8080"];
        await sprite.createService("web", { cmd: "python3", args: web, httpPort: 8080 }, "0s");
        const opened = await watcher.next();
        say(opened);
        say((await sprite.getService("web")).state.pid === opened.pid);
        await sprite.stopService("web");
        say(await watcher.next());
        watcher.close();
    """
    first, opened, same, closed = nodejs.run(server, sprite, script)
    assert first == {"type": "port_list", "ports": []}
    assert (opened["type"], opened["port"], opened["address"]) == ("port_opened", 8080, "0.0.0.0") and same
    assert (closed["type"], closed["port"]) == ("port_closed", 8080)


async def _until(condition: Any, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.1)
