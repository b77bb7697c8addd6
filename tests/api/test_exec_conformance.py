"""Exec, row by row of the API's reference, by the clients that are published."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import websockets
from sprites.session import kill_session

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves


def connect(server: serving.Server, sprite: Any, rest: str, agent: str = "plain") -> Any:
    return websockets.connect(
        f"{server.url.replace('http', 'ws')}/v1/sprites/{sprite.name}{rest}",
        additional_headers={"Authorization": f"Bearer {server.token}"},
        user_agent_header=agent,
        max_size=None,
    )


async def to_the_end(socket: Any) -> tuple[bytes, bytes, list[dict[str, Any]], int | None]:
    """Output, errors, texts and exit code of a command without a terminal."""
    out, err, texts, code = b"", b"", [], None
    async with asyncio.timeout(60):
        async for message in socket:
            if isinstance(message, str):
                texts.append(json.loads(message))
            elif message[0] == 1:
                out += message[1:]
            elif message[0] == 2:
                err += message[1:]
            else:
                assert message[0] == 3 and len(message) == 2
                code = message[1]
    return out, err, texts, code


# The parameters


@proves("exec: cmd, the whole argument vector, without a shell", PYTHON)
def test_arguments_python(shared: Any) -> None:
    odd = ["a b", "", "$HOME", "*", "ä\N{SNOWMAN}", "-n", "'\"\\", "a\nb"]
    done = shared.run("python3", "-c", "import sys; print(repr(sys.argv[1:]))", *odd, capture_output=True)
    assert done.stdout.decode().strip() == repr(odd)


@proves("exec: cmd, the whole argument vector, without a shell", JAVASCRIPT)
def test_arguments_javascript(server: serving.Server, shared: Any) -> None:
    odd = ["a b", "", "$HOME", "*", "ä\N{SNOWMAN}", "-n"]
    script = """
        const {stdout} = await sprite.execFile("python3", ["-c", "import sys; print(repr(sys.argv[1:]))", ...args.odd]);
        say(stdout.trim());
        say((await sprite.exec("echo one  two")).stdout);
    """
    assert nodejs.run(server, shared, script, odd=odd) == [repr(odd), "one two\n"]


@proves("exec: path, another program than argv[0] says", PLAIN)
async def test_path(server: serving.Server, shared: Any) -> None:
    async with connect(
        server, shared, "/exec?cmd=name&cmd=-c&cmd=echo%20%240%20%24SHLVL&path=/bin/sh"
    ) as socket:
        assert (await to_the_end(socket))[0].split()[0] == b"name"
    for tty in ("true", "false"):
        rest = f"/exec?cmd=name&cmd=60&path=/bin/sleep&tty={tty}&max_run_after_disconnect=1s"
        async with connect(server, shared, rest) as socket:
            # Not what passes the name on, nor what asks for the terminal's size first.
            assert json.loads(await socket.recv())["command"] == "name 60"
    async with connect(server, shared, "/exec?cmd=name&path=/no/such") as socket:
        _, err, _, code = await to_the_end(socket)
        assert code == 127 and b"/no/such" in err
    async with connect(server, shared, "/exec?path=hostname") as socket:
        assert (await to_the_end(socket))[0].decode() == f"{shared.name}\n"


@proves("exec: env, over the default environment", PYTHON)
def test_environment_python(shared: Any) -> None:
    done = shared.run("env", capture_output=True, env={"A": "1=2", "LANG": "", "B": "x y"})
    lines = done.stdout.decode().splitlines()
    assert {"A=1=2", "LANG=", "B=x y", "HOME=/home/sprite", "USER=sprite"} <= set(lines)
    assert any(line.startswith("PATH=") and "/usr/bin" in line for line in lines)


@proves("exec: env, over the default environment", JAVASCRIPT)
def test_environment_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const {stdout} = await sprite.execFile("sh", ["-c", "echo $A $HOME"], {env: {A: "1 = 2"}});
        say(stdout);
    """
    assert nodejs.run(server, shared, script) == ["1 = 2 /home/sprite\n"]


@proves("exec: dir, /home/sprite if not given", PYTHON)
def test_directory_python(shared: Any) -> None:
    assert shared.run("pwd", capture_output=True).stdout == b"/home/sprite\n"
    assert shared.run("pwd", capture_output=True, cwd="/usr/lib").stdout == b"/usr/lib\n"
    done = shared.run("pwd", capture_output=True, cwd="/none")
    assert done.returncode == 126 and b"/none" in done.stderr


@proves("exec: dir, /home/sprite if not given", JAVASCRIPT)
def test_directory_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        say((await sprite.execFile("pwd")).stdout);
        say((await sprite.execFile("pwd", [], {cwd: "/usr/lib"})).stdout);
    """
    assert nodejs.run(server, shared, script) == ["/home/sprite\n", "/usr/lib\n"]


@proves("exec: stdin, and its end", PYTHON)
def test_input_python(shared: Any) -> None:
    data = bytes(range(256)) * 4000
    out = io.BytesIO()
    command = shared.command("cat", stdin=io.BytesIO(data), stdout=out)
    command.run()
    assert out.getvalue() == data
    assert shared.run("cat", capture_output=True).stdout == b"", "no input is the end of it"


@proves("exec: stdin, and its end", JAVASCRIPT)
def test_input_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const command = sprite.spawn("sh", ["-c", "cat; echo end"]);
        const chunks = [];
        command.stdout.on("data", (chunk) => chunks.push(chunk));
        await new Promise((resolve) => command.on("spawn", resolve));
        for (let n = 0; n < 100; n++) command.stdin.write("x".repeat(10000));
        command.stdin.end();
        say(await command.wait());
        const output = Buffer.concat(chunks).toString();
        say([output.length, output.slice(-4)]);
    """
    assert nodejs.run(server, shared, script) == [0, [1_000_004, "end\n"]]


@proves("exec: pings are answered while a command does not read its input", PLAIN)
async def test_pings_behind_input(server: serving.Server, shared: Any) -> None:
    command = ["sh", "-c", "trap : USR1; sleep 1000 & wait; wc -c"]
    query = urlencode({"cmd": command, "stdin": "true"}, doseq=True)
    async with connect(server, shared, f"/exec?{query}") as socket:
        for _ in range(1000):
            await socket.send(bytes(1001))
        async with asyncio.timeout(30):
            await (await socket.ping())
        await socket.send('{"type":"signal","signal":"USR1"}')
        await socket.send(b"\x04")
        assert (await to_the_end(socket))[0] == b"1000000\n"


@proves("exec: without stdin a command has no input", PLAIN)
async def test_no_input(server: serving.Server, shared: Any) -> None:
    for rest in ("/exec?cmd=cat", "/exec?cmd=cat&stdin=false"):
        async with connect(server, shared, rest) as socket:
            assert (await to_the_end(socket))[3] == 0


@proves("exec: input of an old client, without a marker", PLAIN)
async def test_input_without_a_marker(server: serving.Server, shared: Any) -> None:
    async with connect(server, shared, "/exec?cmd=cat&stdin=true") as socket:
        await socket.send(b"hello\n")
        await socket.send(b'{"type":"json"}\n')
        await socket.send(b"\x04")
        assert (await to_the_end(socket))[0] == b'hello\n{"type":"json"}\n'


@proves("exec: cc is ignored", JAVASCRIPT)
def test_cc(server: serving.Server, shared: Any) -> None:
    script = """
        say((await sprite.execFile("echo", ["hi"], {controlMode: true})).stdout);
    """
    assert nodejs.run(server, shared, script) == ["hi\n"]


# Exit


@proves("exec: exit codes 0 to 255", PYTHON)
def test_exit_codes_python(shared: Any) -> None:
    for code in (*range(0, 20), 126, 127, 128, 254, 255):
        assert shared.run("sh", "-c", f"exit {code}").returncode == code


@proves("exec: exit codes 0 to 255", JAVASCRIPT)
def test_exit_codes_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        for (const code of [0, 1, 126, 127, 255]) {
            try { say((await sprite.execFile("sh", ["-c", `exit ${code}`])).exitCode); }
            catch (error) { say(error.exitCode ?? error.result?.exitCode); }
        }
    """
    assert nodejs.run(server, shared, script) == [0, 1, 126, 127, 255]


@proves("exec: 126, 127 and 128+n as a shell says them", PYTHON)
def test_special_codes(shared: Any) -> None:
    missing = shared.run("no-such-program", capture_output=True)
    assert missing.returncode == 127 and b"not found" in missing.stderr
    forbidden = shared.run("/etc/passwd", capture_output=True)
    assert forbidden.returncode == 126
    assert any(why in forbidden.stderr for why in (b"denied", b"not permitted"))  # by the version of crun
    for number in (1, 9, 15):
        assert shared.run("sh", "-c", f"kill -{number} $$").returncode == 128 + number


@proves("exec: a fast command loses no output", JAVASCRIPT)
def test_fast_commands(server: serving.Server, shared: Any) -> None:
    script = """
        let wrong = 0;
        for (let n = 0; n < 100; n++) {
            const {stdout, stderr} = await sprite.execFile("sh", ["-c", `echo out ${n}; echo err ${n} >&2`]);
            if (stdout !== `out ${n}\\n` || stderr !== `err ${n}\\n`) wrong++;
        }
        say(wrong);
    """
    assert nodejs.run(server, shared, script) == [0]


@proves("exec: standard output and error apart", PYTHON)
def test_two_streams(shared: Any) -> None:
    done = shared.run("sh", "-c", "echo out; echo err >&2", capture_output=True)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


@proves("exec: a silent command is kept alive", JAVASCRIPT)
@pytest.mark.slow
def test_silence(server: serving.Server, shared: Any) -> None:
    """The client gives up after 45 s without a message; it has no pings."""
    script = """
        say((await sprite.execFile("sh", ["-c", "sleep 62; echo done"])).stdout);
    """
    assert nodejs.run(server, shared, script, timeout=150) == ["done\n"]


# Terminals


@proves("exec: a terminal, its size and its exit code", PYTHON)
def test_terminal_python(shared: Any) -> None:
    out = io.BytesIO()
    command = shared.command(
        "sh", "-c", "stty size; tty; exit 7", tty=True, tty_rows=33, tty_cols=99, stdout=out
    )
    with pytest.raises(Exception, match="7"):
        command.run()
    assert command.exit_code == 7
    assert out.getvalue().startswith(b"33 99\r\n/dev/pts/")


@proves("exec: a terminal, its size and its exit code", JAVASCRIPT)
def test_terminal_javascript(server: serving.Server, shared: Any) -> None:
    """Of the exit code this client learns only whether it is 0."""
    script = """
        for (const code of [0, 7]) {
            const command = sprite.spawn("sh", ["-c", `stty size; exit ${code}`], {tty: true, rows: 33, cols: 99});
            let seen = "";
            command.stdout.on("data", (chunk) => seen += chunk);
            say([await command.wait(), seen]);
        }
    """
    assert nodejs.run(server, shared, script) == [[0, "33 99\r\n"], [1, "33 99\r\n"]]


@proves("exec: a terminal has its size before its program starts", PLAIN)
async def test_the_size_is_there_at_once(server: serving.Server, shared: Any) -> None:
    async def one(rows: int) -> None:
        query = f"/exec?cmd=stty&cmd=size&tty=true&rows={rows}&cols=99"
        async with connect(server, shared, query) as socket:
            seen = b"".join([message async for message in socket if isinstance(message, bytes)])
            assert seen == f"{rows} 99\r\n".encode()

    async with asyncio.timeout(60):
        for start in range(10, 50, 10):
            await asyncio.gather(*[one(rows) for rows in range(start, start + 10)])


@proves("exec: resize", JAVASCRIPT)
def test_resize(server: serving.Server, shared: Any) -> None:
    script = """
        const command = sprite.spawn("sh", [], {tty: true, rows: 24, cols: 80});
        let seen = "";
        command.stdout.on("data", (chunk) => seen += chunk);
        await new Promise((resolve) => command.on("spawn", resolve));
        command.resize(132, 50);
        await new Promise((resolve) => setTimeout(resolve, 300));
        command.stdin.write("stty size; exit\\n");
        await command.wait();
        say(seen.includes("50 132"));
    """
    assert nodejs.run(server, shared, script) == [True]


@proves("exec: signals over the socket", JAVASCRIPT)
def test_signals(server: serving.Server, shared: Any) -> None:
    script = """
        for (const signal of ["TERM", "SIGINT", "HUP", "QUIT", "USR1", "USR2", "KILL"]) {
            const name = signal.replace("SIG", "");
            const trap = name === "KILL" ? "" : `trap 'exit 40' ${name};`;
            const command = sprite.spawn("sh", ["-c", `${trap} echo ready; while :; do sleep 0.05; done`]);
            await new Promise((resolve) => command.stdout.once("data", resolve));
            command.kill(signal);
            say(await command.wait());
        }
    """
    assert nodejs.run(server, shared, script) == [40] * 6 + [137]


@proves("exec: port_opened and port_closed while a command runs", JAVASCRIPT)
def test_ports(server: serving.Server, shared: Any) -> None:
    script = """
        const watching = sprite.spawn("sleep", ["60"], {tty: true});  // else this client shows no messages
        const seen = (port, type) => new Promise((resolve) =>
            watching.on("message", (m) => m.type === type && m.port === port && resolve(m)));
        const opened = seen(4321, "port_opened"), closed = seen(4321, "port_closed");
        await new Promise((resolve) => watching.on("spawn", resolve));
        const listening = sprite.spawn("python3", ["-m", "http.server", "4321"]);
        const {address, pid} = await opened;
        say([typeof address, Number.isInteger(pid)]);
        listening.kill("TERM");
        say((await closed).port);
        watching.kill("KILL");
        await watching.wait();
    """
    assert nodejs.run(server, shared, script) == [["string", True], 4321]


# Sessions


@contextmanager
def running(shared: Any, script: str, **options: Any) -> Iterator[Any]:
    """A command that the Python client runs in the background."""
    command = shared.command("sh", "-c", script, **options)

    def run() -> None:
        try:
            command.run()
        except Exception as error:
            command.failure = error

    thread = threading.Thread(target=run)
    thread.start()
    yield command
    thread.join(60)
    assert not thread.is_alive()


def until(condition: Any, patience: float = 10) -> Any:
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)
    return found


@proves("sessions: list", PYTHON)
def test_sessions_python(shared: Any) -> None:
    with running(shared, "echo ready; exec sleep 300", cwd="/usr"):
        [session] = until(lambda: [s for s in shared.list_sessions() if s.command == "sleep 300"])
        assert isinstance(session.id, str) and session.id
        assert (session.workdir, session.is_active, session.tty) == ("/usr", True, False)
        assert session.created.tzinfo is not None and session.last_activity is not None
        assert session.bytes_per_second >= 0
        # The id is the process's own inside.
        assert serving.run(shared, f"cat /proc/{session.id}/cmdline | tr '\\0' ' '") == "sleep 300"
        kinds = [message.type for message in kill_session(shared, session.id, timeout=5)]
        assert kinds == ["signal", "exited", "complete"]
    assert shared.list_sessions() == []


@proves("sessions: list", JAVASCRIPT)
@proves("sessions: kill by query, with signal and timeout", JAVASCRIPT)
def test_sessions_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const command = sprite.spawn("sh", ["-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"]);
        await new Promise((resolve) => command.stdout.once("data", resolve));
        const [session] = await sprite.listSessions();
        say([typeof session.id, session.isActive, session.tty, session.created instanceof Date]);
        for await (const message of await sprite.killSession(session.id, "SIGTERM", "500ms"))
            say([message.type, message.type === "complete" ? message.exitCode : message.signal ?? null]);
        say(await command.wait());
        say((await sprite.listSessions()).length);
    """
    assert nodejs.run(server, shared, script) == [
        ["string", True, False, True],
        ["signal", "SIGTERM"],
        ["timeout", None],
        ["killed", None],
        ["complete", 137],
        137,
        0,
    ]


@proves("sessions: kill by a JSON body", PYTHON)
def test_kill_python(shared: Any) -> None:
    with running(shared, "trap 'exit 3' HUP; echo ready; while :; do sleep 0.1; done") as command:
        [session] = until(shared.list_sessions)
        time.sleep(0.3)
        messages = list(kill_session(shared, session.id, signal="SIGHUP", timeout=5))
        assert [message.type for message in messages] == ["signal", "exited", "complete"]
        assert messages[0].data and "SIGHUP" in messages[0].data
    assert command.exit_code == 3


@proves("sessions: killing one that is gone or never was", PLAIN)
def test_kill_nothing(server: serving.Server, shared: Any) -> None:
    with server.http() as http:
        path = f"/v1/sprites/{shared.name}/exec"
        assert http.post(f"{path}/987654/kill").status_code == 404
        query = {"cmd": "true"}
        http.post(path, params=query)
        ended = http.post(path, params={"cmd": ["sh", "-c", "echo $$"]}).content
        pid = ended[1:].split(b"\n")[0].decode()
        assert http.post(f"{path}/{pid}/kill").status_code == 410


@proves("sessions: attach, replayed from the start", PYTHON)
def test_attach_python(shared: Any) -> None:
    with running(shared, "echo first; echo err >&2; read line; echo second", stdin=_Later()) as command:
        [session] = until(shared.list_sessions)
        out = io.BytesIO()
        attached = shared.attach_session(session.id)
        attached.stdout = out
        thread = threading.Thread(target=attached.run)
        thread.start()
        until(lambda: out.getvalue() == b"first\n")
        command.stdin.ready.set()
        thread.join(30)
        assert out.getvalue() == b"first\nsecond\n" and attached.exit_code == 0


class _Later(io.RawIOBase):
    """Input that comes when it is told to."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self._left = [b"line\n"]

    def read(self, size: int = -1) -> bytes:
        self.ready.wait(60)
        return self._left.pop() if self._left else b""


@proves("sessions: attach, replayed from the start", JAVASCRIPT)
def test_attach_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const command = sprite.spawn("sh", ["-c", "echo first; read line; echo got $line; exit 5"]);
        await new Promise((resolve) => command.stdout.once("data", resolve));
        const [session] = await sprite.listSessions();
        const again = sprite.attachSession(session.id);
        const infos = [];
        again.on("message", (message) => infos.push(message));
        let seen = "";
        again.stdout.on("data", (chunk) => seen += chunk);
        await new Promise((resolve) => again.on("spawn", resolve));
        again.stdin.write("hello\\n");
        say([await again.wait(), await command.wait(), seen]);
        say([infos[0].type, infos[0].session_id === session.id, infos[0].tty, infos[0].is_owner]);
    """
    assert nodejs.run(server, shared, script) == [
        [5, 5, "first\ngot hello\n"],
        ["session_info", True, False, False],
    ]


@proves("sessions: createSession runs on without its client, on a terminal", JAVASCRIPT)
def test_create_session(server: serving.Server, shared: Any) -> None:
    script = """
        const command = sprite.createSession("bash", ["--norc"]);
        let info;
        command.on("message", (message) => info ??= message);
        command.stdout.on("data", () => {});
        await new Promise((resolve) => command.on("spawn", resolve));
        while (!info) await new Promise((resolve) => setTimeout(resolve, 20));
        command.stdin.write("A=kept\\n");
        command.wsCmd.close();
        await new Promise((resolve) => setTimeout(resolve, 500));
        const [session] = await sprite.listSessions();
        say([session.id === info.session_id, session.tty, session.isActive]);
        const again = sprite.attachSession(session.id);
        let seen = "";
        again.stdout.on("data", (chunk) => seen += chunk);
        await new Promise((resolve) => again.on("spawn", resolve));
        again.stdin.write("echo it is $A; exit\\n");
        await again.wait();
        say(seen.includes("it is kept"));
    """
    assert nodejs.run(server, shared, script) == [[True, True, False], True]


@proves("sessions: attaching to a terminal does not end it", PYTHON)
async def test_attach_terminal_python(server: serving.Server, shared: Any) -> None:
    """This client sends the end of input before it knows that there is a terminal."""
    async with connect(server, shared, "/exec?cmd=bash&cmd=--norc&tty=true") as socket:
        session = json.loads(await socket.recv())["session_id"]
    out = io.BytesIO()
    attached = shared.attach_session(session)
    attached.stdout = out
    thread = threading.Thread(target=attached.run)
    thread.start()
    async with connect(server, shared, f"/exec/{session}") as socket:
        await asyncio.sleep(1)
        await socket.send(b"echo still here; exit\n")
        await asyncio.to_thread(until, lambda: b"still here\r\n" in out.getvalue())
    await asyncio.to_thread(thread.join, 30)
    assert attached.exit_code == 0


@proves("sessions: attach by ?id= and by path; session_info first", PLAIN)
@proves("sessions: several clients attached to one; is_owner", PLAIN)
@proves("sessions: attaching to an unknown id is 404 before the upgrade", PLAIN)
async def test_attach_forms(server: serving.Server, shared: Any) -> None:
    async with connect(
        server, shared, "/exec?cmd=sh&cmd=-c&cmd=echo%20out;exec%20sleep%2060&detachable=true"
    ) as one:
        info = json.loads(await one.recv())
        assert (info["is_owner"], info["tty"], type(info["session_id"])) == (True, False, str)
        for rest in (
            f"/exec?id={info['session_id']}",
            f"/exec/{info['session_id']}?stdin=true&env=A%3D1&dir=/x",
        ):
            async with connect(server, shared, rest) as two:
                again = json.loads(await two.recv())
                assert again["type"] == "session_info" and again["session_id"] == info["session_id"]
                assert again["is_owner"] is False
                assert await two.recv() == b"\x01out\n"
        await one.send(json.dumps({"type": "signal", "signal": "KILL"}))
        assert (await to_the_end(one))[3] == 137
    for rest in ("/exec/987654", "/exec?id=987654"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(server, shared, rest).__aenter__()
        assert refused.value.response.status_code == 404
        assert refused.value.response.headers["Sprite-Version"].startswith("v")
    async with connect(server, shared, "/exec?cmd=true&session_id=987654") as other:
        assert (await to_the_end(other))[3] == 0, "that parameter is no attaching"


@proves("exec: max_run_after_disconnect", JAVASCRIPT)
def test_after_disconnect(server: serving.Server, shared: Any) -> None:
    script = """
        for (const options of [{maxRunAfterDisconnect: "300ms"}, {maxRunAfterDisconnect: "1m"}]) {
            const command = sprite.spawn("sh", ["-c", "echo ready; exec sleep 300"], options);
            await new Promise((resolve) => command.stdout.once("data", resolve));
            command.wsCmd.close();
            await new Promise((resolve) => setTimeout(resolve, 1500));
            say((await sprite.listSessions()).length);
        }
        for (const session of await sprite.listSessions())
            for await (const _ of await sprite.killSession(session.id, "SIGKILL")) ;
    """
    assert nodejs.run(server, shared, script) == [0, 1]


# In one HTTP request


@proves("exec by POST: one frame a chunk, exit frame last", JAVASCRIPT)
def test_post_javascript(server: serving.Server, shared: Any) -> None:
    script = """
        const done = await sprite.execFileHTTP("sh", ["-c", "cat; echo $A; pwd; echo err >&2"],
            {input: "input\\n", env: {A: "1"}, cwd: "/usr"});
        say([done.stdout, done.stderr, done.exitCode]);
        try { await sprite.execFileHTTP("sh", ["-c", "exit 9"]); }
        catch (error) { say(error.exitCode ?? error.result?.exitCode); }
        try { await sprite.execFileHTTP("no-such-program"); }
        catch (error) { say(error.exitCode ?? error.result?.exitCode); }
        let wrong = 0;
        for (let n = 0; n < 30; n++) {
            const {stdout} = await sprite.execFileHTTP("sh", ["-c", "for i in 1 2 3; do echo $i; done"]);
            if (stdout !== "1\\n2\\n3\\n") wrong++;
        }
        say(wrong);
    """
    assert nodejs.run(server, shared, script) == [["input\n1\n/usr\n", "err\n", 0], 9, 127, 0]


@proves("exec by POST: a terminal is refused", PLAIN)
def test_post_with_a_terminal(server: serving.Server, shared: Any) -> None:
    with server.http() as http:
        answer = http.post(f"/v1/sprites/{shared.name}/exec?cmd=sh&tty=true")
    assert answer.status_code == 400 and answer.json()["hint"]


@proves("exec by POST: who goes leaves nothing running", PLAIN)
def test_post_and_gone(server: serving.Server, shared: Any) -> None:
    path = f"/v1/sprites/{shared.name}/exec"
    query = {"cmd": ["sh", "-c", "while :; do echo x; sleep 0.1; done"], "max_run_after_disconnect": "100ms"}
    with server.http() as http, http.stream("POST", path, params=query) as answer:
        for _ in answer.iter_raw():
            break
    until(lambda: not shared.list_sessions())


@proves("exec: errors before the upgrade are JSON with the right status", PYTHON)
def test_refusals_python(server: serving.Server) -> None:
    with pytest.raises(Exception, match="not found") as refused:
        server.client().sprite("nobody").run("true")
    assert refused.value.status_code == 404  # type: ignore[attr-defined]
    wrong = httpx.get(f"{server.url}/v1/sprites/nobody/exec", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401


@proves("exec: session_info comes first, with every field", PLAIN)
@proves("exec: the socket is closed with 1000 right after the exit frame", PLAIN)
async def test_session_info(server: serving.Server, shared: Any) -> None:
    for tty in (False, True):
        query = f"/exec?cmd=sh&cmd=-c&cmd=exit%200&tty={str(tty).lower()}&rows=30&cols=90"
        async with connect(server, shared, query) as socket:
            info = json.loads(await socket.recv())
            assert info["type"] == "session_info" and isinstance(info["session_id"], str)
            assert (info["tty"], info["is_owner"], type(info["created"])) == (tty, True, int)
            assert info["command"] == "sh -c 'exit 0'"
            assert not tty or (info["rows"], info["cols"]) == (30, 90)
            last: object = None
            async with asyncio.timeout(20):
                async for message in socket:
                    last = message
        assert (
            last == b"\x03\x00"
            if not tty
            else json.loads(str(last)) == {"type": "exit", "exit_code": 0, "code": 0}
        )
        assert socket.close_code == 1000


@proves("exec: signals by name, with and without SIG", PLAIN)
async def test_names_of_signals(server: serving.Server, shared: Any) -> None:
    for name, number in (
        ("TERM", 15),
        ("SIGINT", 2),
        ("HUP", 1),
        ("SIGQUIT", 3),
        ("USR1", 10),
        ("SIGUSR2", 12),
        ("KILL", 9),
    ):
        async with connect(server, shared, "/exec?cmd=sleep&cmd=60") as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "signal", "signal": name}))
            assert (await to_the_end(socket))[3] == 128 + number, name


@proves("sessions: a cold stop ends them", PLAIN)
async def test_sessions_and_a_stop(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}"
        async with connect(server, sprite, "/exec?cmd=sleep&cmd=60&detachable=true") as socket:
            await socket.recv()
            assert http.get(f"{path}/exec").json()["count"] == 1
            assert (await asyncio.to_thread(http.post, f"{path}/stop")).status_code == 200
            async with asyncio.timeout(20):
                async for _ in socket:
                    continue
        assert http.get(f"{path}/exec").json() == {"count": 0, "sessions": []}
