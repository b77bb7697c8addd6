"""The control connection by the official clients."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest
import websockets
from sprites import AsyncSpritesClient

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves


@pytest.fixture
def controlled(server: serving.Server, shared: Any) -> Iterator[Any]:
    """The shared sprite by a client that uses control connections."""
    with server.client(control_mode=True) as client:
        yield client.sprite(shared.name)


def connect(server: serving.Server, sprite: Any, agent: str = "plain") -> Any:
    return websockets.connect(
        f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}/control",
        additional_headers={"Authorization": f"Bearer {server.token}"},
        user_agent_header=agent,
    )


@proves("control: exec, one after another", PYTHON)
def test_commands_python(controlled: Any) -> None:
    for code in (0, 1, 7, 255, 0):
        done = controlled.run("sh", "-c", f"echo out; echo err >&2; exit {code}", capture_output=True)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"out\n", b"err\n")
    done = controlled.run("sh", "-c", "pwd; echo $A", capture_output=True, cwd="/usr", env={"A": "1 2"})
    assert done.stdout == b"/usr\n1 2\n"
    data = bytes(range(256)) * 4000
    assert controlled.command("cat", stdin=io.BytesIO(data)).output() == data
    assert controlled.run("no-such-program", capture_output=True).returncode == 127
    assert controlled.has_control_connection() and controlled.use_control_mode(), "it was really used"


@proves("control: exec, one after another", JAVASCRIPT)
def test_commands_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const controlled = new SpritesClient(token, { baseURL: url, controlMode: true }).sprite(name);
        for (let n = 0; n < 20; n++) {
            const {stdout} = await controlled.execFile("sh", ["-c", `echo $A ${n}; pwd`], {cwd: "/usr", env: {A: "x"}});
            if (stdout !== `x ${n}\\n/usr\\n`) say(stdout);
        }
        say(controlled.hasControlConnection());
        const connection = await controlled.getControlConnection();
        for (const code of [0, 7, 255]) {
            const op = await connection.startOp("exec", {cmd: ["sh", "-c", `cat; exit ${code}`], stdin: true});
            let seen = "";
            op.on("stdout", (data) => seen += data);
            op.write(Buffer.from("hello"));
            op.sendEOF();
            say([await op.wait(), seen]);
        }
        const trap = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done";
        const op = await connection.startOp("exec", {cmd: ["sh", "-c", trap], stdin: true});
        await new Promise((resolve) => op.once("stdout", resolve));
        op.signal("TERM");
        say(await op.wait());
        controlled.closeControlConnection();
    """
    assert nodejs.run(server, shared, script) == [True, [0, "hello"], [7, "hello"], [255, "hello"], 3]


@proves("control: exec on a terminal", PYTHON)
def test_terminal_python(controlled: Any) -> None:
    done = controlled.run(
        "sh", "-c", "stty size; exit 9", capture_output=True, tty=True, tty_rows=33, tty_cols=99
    )
    assert (done.returncode, done.stdout) == (9, b"33 99\r\n")


@proves("control: exec on a terminal", JAVASCRIPT)
def test_terminal_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const connection = await sprite.getControlConnection();
        const op = await connection.startOp("exec", {cmd: ["sh"], tty: true, rows: 20, cols: 70, stdin: true});
        let seen = "";
        op.on("stdout", (data) => seen += data);
        op.resize(132, 50);
        await new Promise((resolve) => setTimeout(resolve, 300));
        op.write(Buffer.from("stty size; exit 6\\n"));
        say([await op.wait(), seen.includes("50 132")]);
        sprite.closeControlConnection();
    """
    assert nodejs.run(server, shared, script) == [[6, True]]


@proves("control: a command that was given up does not mix with the next", PYTHON)
def test_given_up_python(controlled: Any) -> None:
    with pytest.raises(Exception, match="timed out"):
        controlled.run("sh", "-c", "while :; do echo old; sleep 0.01; done", timeout=1)
    time.sleep(0.2)
    for _ in range(3):
        done = controlled.run("echo", "new", capture_output=True)
        assert done.returncode == 0 and done.stdout.endswith(b"new\n")


@proves("control: a command that was given up with its input unread does not hold up the next", PYTHON)
def test_given_up_with_input_python(controlled: Any) -> None:
    with pytest.raises(Exception, match="timed out"):
        controlled.command("sleep", "1000", stdin=io.BytesIO(bytes(1_000_000)), timeout=1).run()
    done = controlled.run("echo", "new", capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, b"new\n")


@proves("control: many connections at once", PYTHON)
async def test_many_python(server: serving.Server, shared: Any) -> None:
    """One after another in each client: its pool loses operations that start while another one ends."""

    async def one(number: int) -> None:
        async with AsyncSpritesClient(server.token, base_url=server.url, control_mode=True) as client:
            for _ in range(5):
                done = await client.sprite(shared.name).run("echo", str(number), capture_output=True)
                assert done.stdout == f"{number}\n".encode()

    async with asyncio.timeout(60):
        await asyncio.gather(*[one(number) for number in range(15)])


@proves("control: many connections at once", JAVASCRIPT)
def test_many_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const controlled = new SpritesClient(token, { baseURL: url, controlMode: true }).sprite(name);
        const numbers = [...Array(25).keys()];
        for (let round = 0; round < 3; round++) {
            const done = await Promise.all(numbers.map((n) => controlled.execFile("echo", [String(n)])));
            say(done.every(({stdout}, n) => stdout === `${n}\\n`));
        }
        controlled.closeControlConnection();
    """
    assert nodejs.run(server, shared, script) == [True] * 3


@proves("control: what cannot be started is op.error, and the client goes on", PYTHON)
def test_error_python(controlled: Any) -> None:
    with pytest.raises(Exception, match="exit status"):
        controlled.run("true", cwd="not/absolute")
    assert controlled.run("true").returncode == 0


@proves("control: 404 for the client whose reader races", PLAIN)
async def test_racing_client(server: serving.Server, shared: Any) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(server, shared, "sprites-go-sdk/1.0").__aenter__()
    assert refused.value.response.status_code == 404


@proves("control: a sprite that is destroyed ends its connections in order", PYTHON)
def test_destroyed_python(server: serving.Server, new_name: Any) -> None:
    with server.client(control_mode=True) as client, ThreadPoolExecutor(1) as beside:
        sprite = client.create_sprite(new_name())
        waiting = beside.submit(sprite.run, "sleep", "1000")
        serving.until(lambda: sprite.list_sessions())
        server.client().delete_sprite(sprite.name)
        with pytest.raises(Exception, match=r"1012 \(service restart\).* stopped or destroyed"):
            waiting.result(30)


@proves("control: a sprite that is destroyed ends its connections in order", JAVASCRIPT)
def test_destroyed_javascript(server: serving.Server, shared: Any, new_name: Any) -> None:
    """The client throws where nobody can catch it when an idle connection just breaks."""
    script = """
        const own = await client.createSprite(args.own);
        const connection = await own.getControlConnection();
        const end = new Promise((resolve) => connection.once("close", () => resolve("closed")));
        await own.delete();
        say([await end, connection.isClosed()]);
    """
    assert nodejs.run(server, shared, script, own=new_name()) == [["closed", True]]


@proves("control: a server that is stopped ends its connections in order", PLAIN)
async def test_stopped() -> None:
    with serving.server() as own:
        own.start()
        sprite = own.client().create_sprite("open")
        async with connect(own, sprite) as socket:
            await asyncio.to_thread(own.stop)
            with pytest.raises(websockets.ConnectionClosed, match=r"1012 .* the server was stopped"):
                await socket.recv()


@proves("control: attach", PLAIN)
async def test_attach(server: serving.Server, shared: Any) -> None:
    async with connect(server, shared) as one, connect(server, shared) as two:
        start = {"cmd": ["sh", "-c", "echo first; read line; echo got $line"], "stdin": "true"}
        await one.send("control:" + json.dumps({"type": "op.start", "op": "exec", "args": start}))
        info = json.loads(await one.recv())
        assert await one.recv() == b"\x01first\n"
        attach = {"type": "op.start", "op": "exec", "args": {"id": info["session_id"]}}
        await two.send("control:" + json.dumps(attach))
        assert json.loads(await two.recv())["session_id"] == info["session_id"]
        assert await two.recv() == b"\x01first\n"
        await two.send(b"\0it\n")
        for socket in (one, two):
            assert await socket.recv() == b"\x01got it\n"
            assert await socket.recv() == b"\x03\x00"
            end = json.loads((await socket.recv()).removeprefix("control:"))
            assert end == {"type": "op.complete", "args": {"exitCode": 0}}


@proves("control: files", PLAIN)
async def test_files(server: serving.Server, shared: Any) -> None:
    async with connect(server, shared) as socket:

        async def call(op: str, data: bytes | None = None, **args: str) -> list[Any]:
            await socket.send(json.dumps({"type": "op.start", "op": op, "args": urlencode(args)}))
            if data is not None:
                await socket.send(data)
            seen: list[Any] = []
            while not seen or not str(seen[-1].get("type") if isinstance(seen[-1], dict) else "").startswith(
                "op."
            ):
                message = await socket.recv()
                seen.append(json.loads(message) if isinstance(message, str) else message)
            return seen

        await call("fs.write", b"hello", path="control-file", workingDir="/home/sprite")
        assert (await call("fs.read", path="/home/sprite/control-file"))[1] == b"hello"
        await call("fs.rename", source="/home/sprite/control-file", dest="/home/sprite/other")
        [listed, _] = await call("fs.list", path="/home/sprite/other")
        assert listed["entries"][0]["size"] == 5
        assert (await call("fs.delete", path="/home/sprite/other"))[-1] == {"type": "op.complete"}
        [error, end] = await call("fs.read", path="/home/sprite/other")
        assert error["code"] == "ENOENT" and end["type"] == "op.error"


@proves("control: an idle connection lets the sprite sleep, and wakes it again", PYTHON)
def test_sleep_python() -> None:
    with serving.server() as own:
        own.start("--idle", "1")
        with own.client(control_mode=True) as client, own.http() as http:
            sprite = client.create_sprite("rests")
            assert sprite.run("echo", "1", capture_output=True).stdout == b"1\n"
            deadline = time.monotonic() + 30
            while http.get("/v1/sprites/rests").json()["status"] != "warm":
                assert time.monotonic() < deadline, http.get("/v1/sprites/rests").json()
                time.sleep(0.1)
            assert sprite.run("echo", "2", capture_output=True).stdout == b"2\n"
            assert sprite.has_control_connection()
            assert sprite.run("sh", "-c", "sleep 4; echo 3", capture_output=True).stdout == b"3\n"
