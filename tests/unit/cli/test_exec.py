"""exec, console and sessions: input, output, signals, terminals and exit codes."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from .conftest import Spriggan
from .playing import PlayedServer


@pytest.fixture(autouse=True)
def dev(server: PlayedServer) -> None:
    server.add("dev")


def test_output_and_exit_code_are_the_commands(spriggan: Spriggan) -> None:
    result = spriggan("exec", "-s", "dev", "--", "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, b"out\n", b"err\n")


def test_options_after_the_command_are_the_commands(spriggan: Spriggan) -> None:
    assert spriggan("-s", "dev", "exec", "echo", "-n", "--help").stdout == b"--help"


def test_binary_input_arrives_unchanged(spriggan: Spriggan, server: PlayedServer) -> None:
    sent = os.urandom(3_000_000)
    result = spriggan("exec", "-s", "dev", "--", "cat", stdin=sent)
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(sent).digest()


def test_input_from_a_file(spriggan: Spriggan, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"from a file")
    with (tmp_path / "in").open("rb") as file:
        process = spriggan.start("exec", "-s", "dev", "--", "cat", stdin=file, stdout=subprocess.PIPE)
        assert process.communicate(timeout=20)[0] == b"from a file"


def test_no_stdin_leaves_input_to_others(spriggan: Spriggan) -> None:
    script = " ".join(
        f"'{word}'" for word in spriggan.command("exec", "-s", "dev", "--no-stdin", "--", "cat")
    )
    result = subprocess.run(
        ["sh", "-c", f"{script}; cat"],
        input=b"kept",
        capture_output=True,
        env=spriggan.env,
        check=True,
        timeout=20,
    )
    assert result.stdout == b"kept"


def test_environment_and_directory(spriggan: Spriggan, server: PlayedServer) -> None:
    arguments = ["exec", "-s", "dev", "--dir", "/usr", "--env", "A=1,B=x,y", "--env", "C=", "--"]
    result = spriggan(*arguments, "sh", "-c", "pwd; echo $A $B $C.")
    assert result.stdout == b"/usr\n1 x,y .\n"


@pytest.mark.parametrize("bad", ["A", "=x", "1A=2"])
def test_bad_environment(spriggan: Spriggan, bad: str) -> None:
    result = spriggan("exec", "-s", "dev", "--env", bad, "--", "true")
    assert result.returncode == 1
    assert b"is not NAME=VALUE" in result.stderr


def test_no_command(spriggan: Spriggan) -> None:
    result = spriggan("exec", "-s", "dev")
    assert result.returncode == 2
    assert result.stderr == b"spriggan: no command is given\n  hint: 'spriggan exec --help' shows how\n"


def test_refused_upgrade_shows_the_servers_words(spriggan: Spriggan) -> None:
    result = spriggan("exec", "-s", "ghost", "--", "true")
    assert result.returncode == 1
    assert result.stderr == b"spriggan: there is no such sprite\n  hint: see 'spriggan list'\n"


def test_lost_connection_is_an_error(spriggan: Spriggan, server: PlayedServer) -> None:
    server.drop_exec_after = 1
    result = spriggan("exec", "-s", "dev", "--", "sh", "-c", "echo x; sleep 5")
    assert result.returncode == 1
    assert b"the connection was lost before the command ended (gone)" in result.stderr
    assert b"sessions attach 7" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_go_to_the_command_and_nothing_is_lost(spriggan: Spriggan, number: signal.Signals) -> None:
    script = "trap 'echo caught; exit 9' INT TERM HUP; echo ready; while :; do sleep 0.05; done"
    process = spriggan.start("exec", "-s", "dev", "--", "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=20)[0] == b"caught\n"
    assert process.returncode == 9


def test_three_interrupts_leave_a_deaf_command(spriggan: Spriggan) -> None:
    script = "trap '' INT; echo ready; exec sleep 30"
    process = spriggan.start(
        "exec", "-s", "dev", "--", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"left session 7" in errors


def test_a_reader_that_goes_away_ends_it(spriggan: Spriggan, server: PlayedServer) -> None:
    process = spriggan.start("exec", "-s", "dev", "--", "yes", stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert {"type": "signal", "signal": "TERM"} in server.texts


def test_a_slow_reader_gets_everything(spriggan: Spriggan) -> None:
    count = 300_000
    process = spriggan.start("exec", "-s", "dev", "--", "seq", str(count), stdout=subprocess.PIPE)
    assert process.stdout
    time.sleep(1)
    output = process.stdout.read()
    assert process.wait(timeout=20) == 0
    assert output.split() == [str(n).encode() for n in range(1, count + 1)]


class Terminal:
    """The command with a terminal of its own, as a person would run it."""

    def __init__(self, spriggan: Spriggan, *arguments: str) -> None:
        self.master, self._slave = pty.openpty()
        self.before = termios.tcgetattr(self._slave)
        self.process = spriggan.start(
            *arguments, stdin=self._slave, stdout=self._slave, stderr=self._slave, start_new_session=True
        )

    def read_until(self, wanted: bytes) -> bytes:
        seen = b""
        deadline = time.monotonic() + 20
        os.set_blocking(self.master, False)
        while wanted not in seen:
            assert time.monotonic() < deadline, seen
            try:
                seen += os.read(self.master, 4096)
            except BlockingIOError:
                time.sleep(0.02)
        return seen

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def is_restored(self) -> bool:
        return termios.tcgetattr(self._slave) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self._slave)


def test_terminal_is_raw_resized_and_restored(spriggan: Spriggan, server: PlayedServer) -> None:
    script = "stty size; read a; stty size; read b; exit 5"
    terminal = Terminal(spriggan, "exec", "-s", "dev", "--tty", "--", "sh", "-c", script)
    try:
        terminal.read_until(b"24 80")
        assert not terminal.is_restored()
        termios.tcsetwinsize(terminal.master, (33, 111))
        terminal.process.send_signal(signal.SIGWINCH)
        time.sleep(0.3)
        terminal.type(b"a\r")
        terminal.read_until(b"33 111")
        terminal.type(b"b\r")
        assert terminal.process.wait(timeout=20) == 5
        assert terminal.is_restored()
    finally:
        terminal.close()


def test_control_c_in_a_terminal_is_a_key(spriggan: Spriggan, server: PlayedServer) -> None:
    script = "trap 'echo caught; exit 6' INT; echo ready; while :; do sleep 0.05; done"
    terminal = Terminal(spriggan, "exec", "-s", "dev", "-t", "--", "sh", "-c", script)
    try:
        terminal.read_until(b"ready")
        terminal.type(b"\x03")
        terminal.read_until(b"caught")
        assert terminal.process.wait(timeout=20) == 6
    finally:
        terminal.close()


def test_console_detaches_and_restores_the_terminal(spriggan: Spriggan, server: PlayedServer) -> None:
    terminal = Terminal(spriggan, "console", "dev")
    try:
        terminal.read_until(b"$" if os.getuid() else b"#")
        terminal.type(b"echo typ\x1c")
        terminal.read_until(b"left session 7; to see it again: spriggan sessions attach 7")
        assert terminal.process.wait(timeout=20) == 0
        assert terminal.is_restored()
    finally:
        terminal.close()


def test_terminal_is_restored_when_terminated(spriggan: Spriggan) -> None:
    terminal = Terminal(spriggan, "exec", "-s", "dev", "-t", "--", "sh", "-c", "echo ready; sleep 30")
    try:
        terminal.read_until(b"ready")
        terminal.process.terminate()
        terminal.read_until(b"left session 7")
        assert terminal.process.wait(timeout=20) == 128 + signal.SIGTERM
        assert terminal.is_restored()
    finally:
        terminal.close()


def test_tty_without_a_terminal(spriggan: Spriggan) -> None:
    result = spriggan("exec", "-s", "dev", "-t", "--", "cat", stdin=b"hello\n")
    assert b"hello" in result.stdout
    assert result.returncode == 0


def test_attach_takes_the_mode_from_the_session(spriggan: Spriggan) -> None:
    for session in ("12", "13"):
        result = spriggan("sessions", "attach", "-s", "dev", session)
        assert (result.stdout, result.returncode) == (b"replayed", 3), result.stderr


def test_sessions_list_shows_no_control_characters(spriggan: Spriggan) -> None:
    result = spriggan("sessions", "list", "-s", "dev")
    assert b"\x1b" not in result.stdout
    assert b"evil\\x1b]0;title\\x07" in result.stdout


def test_sessions_kill(spriggan: Spriggan, server: PlayedServer) -> None:
    result = spriggan("sessions", "kill", "-s", "dev", "12", "--signal", "HUP", "--timeout", "1.5")
    assert result.returncode == 0
    assert server.requests[-1] == ("POST", "/v1/sprites/dev/exec/12/kill?signal=HUP&timeout=1.5s")
