"""Exec as clients use it: nothing lost, codes exact, terminals, sessions."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import subprocess
import time
from typing import Any

import pytest
import websockets

import serving


def test_a_thousand_echoes_lose_nothing(sprite: Any) -> None:
    for number in range(1000):
        done = sprite.run("sh", "-c", f"echo line {number}; exit {number % 256}", capture_output=True)
        assert done.stdout == f"line {number}\n".encode()
        assert done.returncode == number % 256


def test_much_output_arrives_whole(sprite: Any) -> None:
    script = "head -c 50000000 /dev/zero | tr '\\0' x; echo end >&2"
    done = sprite.run("sh", "-c", script, capture_output=True)
    assert len(done.stdout) == 50_000_000 and set(done.stdout) == {ord("x")}
    assert done.stderr == b"end\n"


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_exit_codes(sprite: Any, script: str, code: int) -> None:
    assert sprite.run("sh", "-c", script).returncode == code


def test_a_missing_program_is_127_and_says_so(sprite: Any) -> None:
    done = sprite.run("no-such-program", capture_output=True)
    assert done.returncode == 127 and b"not found" in done.stderr


def test_post_exec_answers_with_a_frame_a_chunk(sprite: Any, server: serving.Server) -> None:
    with server.http() as http:
        query = [("cmd", "sh"), ("cmd", "-c"), ("cmd", "cat; echo err >&2; exit 9"), ("stdin", "true")]
        answer = http.post(f"/v1/sprites/{sprite.name}/exec", params=query, content=b"input")
    assert answer.status_code == 200
    assert answer.content.endswith(b"\x03\x09")
    assert b"\x01input" in answer.content and b"\x02err\n" in answer.content


def test_a_background_process_does_not_hold_the_exit(sprite: Any) -> None:
    start = time.monotonic()
    done = sprite.run("sh", "-c", "sleep 60 & echo started", capture_output=True)
    assert done.stdout == b"started\n" and time.monotonic() - start < 30


async def test_a_terminal_with_its_size(sprite: Any, server: serving.Server) -> None:
    query = "cmd=sh&tty=true&rows=30&cols=100"
    async with _connect(server, f"/v1/sprites/{sprite.name}/exec?{query}") as socket:
        info = json.loads(await socket.recv())
        assert info["type"] == "session_info" and info["tty"] is True and isinstance(info["session_id"], str)
        await socket.send(b"stty size; tty\n")
        assert b"30 100" in await _until(socket, b"/dev/pts/")
        await socket.send(json.dumps({"type": "resize", "rows": 50, "cols": 132}))
        await socket.send(b"stty size; exit 3\n")
        seen, text = b"", None
        with contextlib.suppress(websockets.ConnectionClosedError):  # 4003 is not a normal end
            async for message in socket:
                if isinstance(message, bytes):
                    seen += message
                else:
                    text = json.loads(message)
        assert b"50 132" in seen
        assert text == {"type": "exit", "exit_code": 3, "code": 3}
        assert socket.close_code == 4003


async def test_sessions_are_listed_attached_and_killed(sprite: Any, server: serving.Server) -> None:
    path = f"/v1/sprites/{sprite.name}/exec"
    script = "echo first; sleep 1000"
    query = f"cmd=sh&cmd=-c&cmd={script.replace(' ', '%20')}&max_run_after_disconnect=0"
    async with _connect(server, f"{path}?{query}") as socket:
        session = json.loads(await socket.recv())["session_id"]
        assert await socket.recv() == b"\x01first\n"
    with server.http() as http:
        listed = http.get(path).json()
        assert [s["id"] for s in listed["sessions"]] == [session] and listed["count"] == 1
        assert listed["sessions"][0]["is_active"] is False
        async with _connect(server, f"{path}/{session}") as again:
            assert json.loads(await again.recv())["session_id"] == session
            assert await again.recv() == b"\x01first\n"  # replayed from the start
            killed = http.post(f"{path}/{session}/kill", json={"signal": "SIGTERM", "timeout": 5})
            kinds = [json.loads(line)["type"] for line in killed.text.splitlines()]
            assert kinds == ["signal", "exited", "complete"]
            assert await again.recv() == b"\x03" + bytes([143])
        assert http.post(f"{path}/{session}/kill").status_code == 410
        assert http.get(path).json()["sessions"] == []
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with _connect(server, f"{path}/999999"):
            pass
    assert refused.value.response.status_code == 404


def test_ctrl_c_of_the_command_line_reaches_the_command(sprite: Any, server: serving.Server) -> None:
    script = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    environment = {"SPRITES_API_URL": server.url, "SPRITE_TOKEN": server.token, "PATH": "/usr/bin:/bin"}
    command = [serving.SPRIGGAN, "exec", "-s", sprite.name, "--no-stdin", "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(2)
        assert process.stdout.read() == b"caught\n"
        assert process.wait(30) == 5


def _connect(server: serving.Server, path: str) -> Any:
    headers = {"Authorization": f"Bearer {server.token}"}
    return websockets.connect(server.url.replace("http", "ws") + path, additional_headers=headers)


async def _until(socket: Any, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(20):
        while wanted not in seen:
            message = await socket.recv()
            seen += message if isinstance(message, bytes) else b""
    return seen


def test_a_kill_reaches_what_the_command_has_started(sprite: Any, server: serving.Server) -> None:
    path = f"/v1/sprites/{sprite.name}/exec"
    with server.http() as http, concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(sprite.run, "sh", "-c", "sleep 4343; true")
        while serving.run(sprite, "pgrep -xc sleep || true") != "1":
            time.sleep(0.05)
        [session] = [s for s in http.get(path).json()["sessions"] if "4343" in s["command"]]
        assert http.post(f"{path}/{session['id']}/kill").status_code == 200
        assert running.result(30).returncode == 143
    assert serving.run(sprite, "pgrep -xc sleep || true") == "0"
