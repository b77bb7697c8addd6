"""Exec over WebSocket: framing, input, terminals, signals, exit codes."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest
from pilot_client import Done, Pilot, finish, query, until
from websockets.exceptions import InvalidStatus


async def test_a_command_without_a_terminal(pilot: Pilot) -> None:
    done = await pilot.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.exit, done.close) == (b"out\n", b"err\n", 7, 1000)
    info = done.info
    assert info["type"] == "session_info"
    assert isinstance(info["session_id"], str)
    assert (info["tty"], info["is_owner"]) == (False, True)


async def test_signals_are_announced_in_the_handshake(pilot: Pilot) -> None:
    async with pilot.connect(query("true")) as socket:
        assert socket.response is not None
        assert "signal" in socket.response.headers["X-Sprite-Capabilities"]


async def test_the_connection_does_not_wait_for_the_command(pilot: Pilot) -> None:
    """A machine may be so busy that to start a process takes longer than clients wait for a handshake."""
    go = pilot.directory / "go"
    async with asyncio.timeout(30), pilot.connect(query("late", str(go), "cat")) as socket:
        await socket.send(b"\0input")
        await socket.send(b"\x04")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await socket.recv()
        go.touch()
        done = await finish(socket)
    assert (done.info["type"], done.stdout, done.exit) == ("session_info", b"input", 0)


@pytest.mark.parametrize("code", [0, 1, 126, 127, 128, 255])
async def test_exit_codes(pilot: Pilot, code: int) -> None:
    assert (await pilot.run("sh", "-c", f"exit {code}")).exit == code


async def test_a_command_ended_by_a_signal(pilot: Pilot) -> None:
    assert (await pilot.run("sh", "-c", "kill -9 $$")).exit == 128 + 9


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_a_command_that_cannot_be_started(pilot: Pilot, program: str, code: int) -> None:
    done = await pilot.run(program)
    assert (done.exit, done.close) == (code, 1000)
    assert program.encode() in done.stderr
    done = await pilot.run(program, path=program, tty="false")
    assert done.info["type"] == "session_info"


async def test_input_and_its_end(pilot: Pilot) -> None:
    data = bytes(range(256)) * 8192
    done = await pilot.run("cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert done.exit == 0


async def test_input_without_a_marker(pilot: Pilot) -> None:
    async with pilot.connect(query("cat")) as socket:
        await socket.send(b"hello")
        await socket.send(b"\x04")
        assert (await finish(socket)).stdout == b"hello"


async def test_input_of_an_old_client_that_looks_like_a_message(pilot: Pilot) -> None:
    async with asyncio.timeout(30), pilot.connect(query("head", "-n", "1")) as socket:
        await socket.send(b'{"type": "not for us"}\n')
        assert (await finish(socket)).stdout == b'{"type": "not for us"}\n'


async def test_a_program_is_told_another_name(pilot: Pilot) -> None:
    done = await pilot.run("another", "-c", "echo $0", path="/bin/sh")
    assert (done.stdout, done.exit) == (b"another\n", 0)


async def test_without_the_parameter_a_command_has_no_input(pilot: Pilot) -> None:
    async with asyncio.timeout(30), pilot.connect("/exec?cmd=cat") as socket:
        assert (await finish(socket)).exit == 0


async def test_no_input_means_its_end_at_once(pilot: Pilot) -> None:
    async with asyncio.timeout(30), pilot.connect(query("cat", stdin="false")) as socket:
        assert (await finish(socket)).exit == 0


async def test_input_that_nobody_reads_does_not_hold_up_the_end(pilot: Pilot) -> None:
    async with asyncio.timeout(20), pilot.connect(query("sleep", "0.3")) as socket:
        sending = asyncio.create_task(socket.send(b"\0" + b"x" * 4_000_000))
        done = await finish(socket)
        await asyncio.gather(sending, return_exceptions=True)
    assert done.exit == 0


async def test_the_environment_lies_over_the_defaults(pilot: Pilot) -> None:
    done = await pilot.run("env", env="GREETING=a b=c")
    lines = done.stdout.decode().splitlines()
    assert "GREETING=a b=c" in lines
    assert "HOME=/home/sprite" in lines
    assert any(line.startswith("PATH=/.sprite/bin:") for line in lines)


async def test_standard_streams_open_by_name(pilot: Pilot) -> None:
    script = "echo out > /dev/stdout; echo err > /dev/stderr"
    done = await pilot.run("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", script)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


async def test_fast_commands_lose_nothing(pilot: Pilot) -> None:
    async def one(number: int) -> None:
        done = await pilot.run("sh", "-c", f"seq 2000; echo e{number} >&2; exit {number % 256}")
        assert done.stdout == "".join(f"{n}\n" for n in range(1, 2001)).encode()
        assert done.stderr == f"e{number}\n".encode()
        assert done.exit == number % 256

    for start in range(0, 300, 10):
        await asyncio.gather(*[one(number) for number in range(start, start + 10)])


async def test_a_command_line_of_many_kilobytes(pilot: Pilot) -> None:
    script = "# " + "x" * 15_000 + "\necho done"
    assert (await pilot.run("sh", "-c", script)).stdout == b"done\n"


async def test_a_command_line_as_long_as_linux_takes(pilot: Pilot) -> None:
    script = "# " + "x" * 100_000 + "\necho done"
    assert (await pilot.run("sh", "-c", script)).stdout == b"done\n"


async def test_a_long_command_line_in_pieces(pilot: Pilot) -> None:
    reader, writer = await asyncio.open_unix_connection(str(pilot.socket))
    head = f"POST {query('echo', 'x' * 100_000)} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    for start in range(0, len(head), 40_000):
        writer.write(head[start : start + 40_000])
        await asyncio.sleep(0.1)
    answer = await reader.readline()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")


# Terminals


async def test_a_command_on_a_terminal(pilot: Pilot) -> None:
    done = await pilot.run(
        "sh", "-c", "tty >/dev/null && stty size; exit 7", tty="true", rows="33", cols="99"
    )
    assert done.raw == b"33 99\r\n"
    assert (done.exit, done.close) == (7, 4007)
    assert (done.info["tty"], done.info["rows"], done.info["cols"]) == (True, 33, 99)
    assert done.texts[-1] == {"type": "exit", "exit_code": 7, "code": 7}


async def test_success_on_a_terminal_closes_with_1000(pilot: Pilot) -> None:
    done = await pilot.run("echo", "hi", tty="true")
    assert (done.raw, done.exit, done.close) == (b"hi\r\n", 0, 1000)


async def test_a_terminal_takes_raw_input_and_another_size(pilot: Pilot) -> None:
    async with asyncio.timeout(20), pilot.connect(query("sh", tty="true")) as socket:
        await socket.send(b"echo read''y\n")
        await until(socket, b"ready", tty=True)
        await socket.send(json.dumps({"type": "resize", "rows": 50, "cols": 132}))
        await socket.send(b"stty size\n")
        await until(socket, b"50 132", tty=True)
        for nonsense in ("{", "[]", '{"type":"resize","rows":-1,"cols":99999}', '{"type":"x"}'):
            await socket.send(nonsense)
        await socket.send(b"\x04")
        assert (await finish(socket, tty=True)).exit == 0


async def test_a_lot_of_output_on_a_terminal(pilot: Pilot) -> None:
    done = await pilot.run("sh", "-c", "seq 200000", tty="true", timeout=40)
    assert done.raw == "".join(f"{n}\r\n" for n in range(1, 200001)).encode()


async def test_a_command_that_cannot_be_started_on_a_terminal(pilot: Pilot) -> None:
    done = await pilot.run("/no/such/program", tty="true")
    assert done.exit == 127 or b"No such file" in done.raw  # here setsid is what says it
    assert done.close == 4000 + (done.exit or 0)


# Signals


@pytest.mark.parametrize("binary", [False, True])
async def test_signals_over_the_socket(pilot: Pilot, binary: bool) -> None:
    script = "trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    async with asyncio.timeout(20), pilot.connect(query("sh", "-c", script)) as socket:
        await until(socket, b"ready\n")
        message = json.dumps({"type": "signal", "signal": "USR1"}, separators=(",", ":"))
        await socket.send(message.encode() if binary else message)
        done = await finish(socket)
    assert (done.stdout, done.exit) == (b"got\n", 3)


async def test_a_signal_goes_to_the_whole_group(pilot: Pilot) -> None:
    async with asyncio.timeout(20), pilot.connect(query("sh", "-c", "echo r; sleep 60 | sleep 60")) as socket:
        await until(socket, b"r\n")
        await socket.send(json.dumps({"type": "signal", "signal": "SIGTERM"}))
        assert (await finish(socket)).exit == 143


async def test_a_signal_gets_past_input_that_nobody_reads(pilot: Pilot) -> None:
    async with asyncio.timeout(30), pilot.connect(query("sleep", "60")) as socket:
        await socket.send(b"\0" + b"x" * 200_000)
        await socket.send(json.dumps({"type": "signal", "signal": "KILL"}))
        assert (await finish(socket)).exit == 137


async def test_a_signal_reaches_the_foreground_job_of_a_terminal(pilot: Pilot) -> None:
    async with asyncio.timeout(30), pilot.connect(query("bash", "--norc", "-i", tty="true")) as socket:
        await socket.send(b"sh -c 'echo rea''dy; exec sleep 60'; echo code=$?\n")
        await until(socket, b"ready\r\n", tty=True)
        await socket.send(json.dumps({"type": "signal", "signal": "TERM"}))
        await until(socket, b"code=143", tty=True)


# What is left behind


async def test_a_quiet_background_process_does_not_hold_up_the_exit(pilot: Pilot) -> None:
    done = await pilot.run("sh", "-c", "sleep 30 & echo started", timeout=20)
    assert (done.stdout, done.exit) == (b"started\n", 0)


async def test_what_a_background_process_says_just_after_the_end_is_kept(pilot: Pilot) -> None:
    assert (await pilot.run("sh", "-c", "(sleep 0.1; echo late) & echo early")).stdout == b"early\nlate\n"


async def test_a_chatty_background_process_does_not_hold_up_the_exit(pilot: Pilot) -> None:
    done = await pilot.run("sh", "-c", "(while :; do echo x; sleep 0.05; done) & exit 4", timeout=20)
    assert done.exit == 4


async def test_a_background_process_survives_what_it_says(pilot: Pilot) -> None:
    mark = pilot.directory / "survived"
    await pilot.run("sh", "-c", f"(sleep 1.5; echo x; echo y; touch {mark}) & exit 0")
    await asyncio.sleep(2.5)
    assert mark.exists()


async def test_whatever_stops_a_command_from_starting_is_said(pilot: Pilot) -> None:
    done = await pilot.run("raise-oserror")
    assert done.exit == 1
    assert b"Too many open files" in done.stderr


# What cannot be right


@pytest.mark.parametrize(
    "parameters",
    [
        {"rows": "0"},
        {"cols": "70000"},
        {"rows": "9" * 4000},
        {"tty": "perhaps"},
        {"env": "NOVALUE"},
        {"env": "=x"},
        {"dir": "a\0b"},
        {"dir": "relative"},
        {"max_run_after_disconnect": "10"},
        {"max_run_after_disconnect": "-5s"},
        {"path": "\0"},
    ],
)
async def test_bad_parameters_are_refused_before_the_upgrade(
    pilot: Pilot, parameters: dict[str, str]
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await pilot.run("true", **parameters)
    response = caught.value.response
    assert response.status_code == 400
    body = json.loads(response.body or b"")
    assert body["error"]
    assert body["message"]
    assert body["hint"]


async def test_any_frames_are_survived(pilot: Pilot) -> None:
    async with asyncio.timeout(20), pilot.connect(query("cat")) as socket:
        for message in (
            b"",
            b"\x03\x00",
            b"\xff" * 100,
            b'{"type":"resize"}',
            b'{"type"\xff',
            "",
            "\0",
            "[" * 50_000,
        ):
            await socket.send(message)
        await socket.send(b"\x04")
        await socket.send(b"\x04")
        await socket.send(b"\0after the end")
        done: Done = await finish(socket)
    assert done.exit == 0
    assert (await pilot.run("echo", "still here")).stdout == b"still here\n"
