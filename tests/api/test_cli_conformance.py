"""The official command line's commands and flags, row by row, as processes of ours against a real server."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import serving
from proof import COMMAND_LINE, proves

NewName = Callable[[], str]


@proves("cli: SPRITES_API_URL and SPRITE_TOKEN say which server", COMMAND_LINE)
def test_variables(server: serving.Server, sprite: Any) -> None:
    assert sprite.name in server.cli("list").stdout.decode()
    assert server.cli("list", SPRITE_TOKEN="wrong").returncode == 1
    # Without them it is the socket in the data directory, where no token is needed.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SPRITE")}
    words = [serving.SPRIGGAN, "--data", str(server.data), "list"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert sprite.name in done.stdout


@proves("cli: create --label, destroy --force", COMMAND_LINE)
def test_create_and_destroy(server: serving.Server, new_name: NewName) -> None:
    name = new_name()
    made = server.cli("create", name, "--skip-console", "--label", "ci", "--label", "x", "--json")
    assert json.loads(made.stdout)["labels"] == ["ci", "x"]
    assert server.cli("destroy", name).returncode == 1  # nobody says yes
    assert server.cli("destroy", "--force", name).returncode == 0
    assert server.cli("info", name).returncode == 1


@proves("cli: list --prefix", COMMAND_LINE)
def test_list(server: serving.Server, sprite: Any, new_name: NewName) -> None:
    other = server.client().create_sprite(f"prefixed-{new_name()}")
    listed = json.loads(server.cli("list", "--prefix", "prefixed-", "--json").stdout)
    assert [each["name"] for each in listed] == [other.name]
    shown = server.cli("ls").stdout.decode().splitlines()
    assert shown[0].split()[:2] == ["NAME", "STATUS"] and {sprite.name, other.name} <= {
        line.split()[0] for line in shown
    }
    other.delete()


@proves("cli: use, use --unset, and the file .sprite", COMMAND_LINE)
@proves("cli: -s, and the name as an argument", COMMAND_LINE)
def test_use(server: serving.Server, sprite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert server.cli("exec", "--", "true").returncode == 1
    assert server.cli("use", sprite.name).returncode == 0
    organization = server.token.split("/")[0]
    remembered = json.loads((tmp_path / ".sprite").read_text())
    assert remembered == {"organization": organization, "sprite": sprite.name}
    assert server.cli("exec", "--", "echo", "here").stdout == b"here\n"
    assert server.cli("use", "--unset").returncode == 0
    for words in (["info", sprite.name], ["info", "-s", sprite.name], ["-s", sprite.name, "info"]):
        assert sprite.name in server.cli(*words).stdout.decode()


@proves("cli: exec passes the exit code through", COMMAND_LINE)
def test_exit_codes(server: serving.Server, sprite: Any) -> None:
    for script, code in (("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)):
        assert server.cli("exec", "-s", sprite.name, "--", "sh", "-c", script).returncode == code
    assert server.cli("exec", "-s", sprite.name, "--", "/no/such").returncode == 127
    assert server.cli("x", "-s", sprite.name, "--", "/etc/passwd").returncode == 126


@proves("cli: exec --dir, --env K=v,K2=v2, --no-stdin, --file src:dst", COMMAND_LINE)
def test_exec_flags(server: serving.Server, sprite: Any, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_bytes(b"notes")
    flags = ["--dir", "/tmp", "--env", "A=1,2,B=3", "--env", "C=4", "--file", f"{notes}:/tmp/in"]
    script = "pwd; echo $A $B $C; cat in; cat"
    done = server.cli("exec", "-s", sprite.name, *flags, "--", "sh", "-c", script, input=b"-input")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/tmp\n1,2 3 4\nnotes-input", b"")
    done = server.cli("exec", "-s", sprite.name, "--no-stdin", "--", "cat", input=b"input")
    assert (done.returncode, done.stdout) == (0, b"")


@proves("cli: exec --tty", COMMAND_LINE)
def test_a_terminal(server: serving.Server, sprite: Any) -> None:
    with Terminal(
        server, "exec", "-s", sprite.name, "--tty", "--", "sh", "-c", "tty; stty size; exit 5"
    ) as terminal:
        shown = terminal.until("24 80")
        assert "/dev/pts/" in shown
        assert terminal.process.wait(20) == 5


@proves("cli: console, and Ctrl+\\ that detaches", COMMAND_LINE)
@proves("cli: sessions list, attach, kill", COMMAND_LINE)
def test_console_and_sessions(server: serving.Server, sprite: Any) -> None:
    with Terminal(server, "console", sprite.name) as terminal:
        terminal.until("sprite")
        terminal.write("marker=in-$((40 + 2)); echo $marker; sleep 4321\n")
        terminal.until("in-42")
        serving.until(lambda: serving.run(sprite, "pgrep -f 'sleep 432[1]'", check=False))
        terminal.write("\x1c")
        assert "attach" in terminal.until("attach")
        assert terminal.process.wait(20) == 0
    [session] = json.loads(server.cli("sessions", "list", "-s", sprite.name, "--json").stdout)
    assert session["tty"] and not session["is_active"]
    with Terminal(server, "sessions", "attach", "-s", sprite.name, session["id"]) as terminal:
        terminal.until("in-42")  # all of it is shown again
        terminal.write("\x1c")
        terminal.process.wait(20)
    with Terminal(server, "attach", "-s", sprite.name, session["id"]) as terminal:
        terminal.until("in-42")
        killed = server.cli("sessions", "kill", "-s", sprite.name, session["id"], "--signal", "KILL")
        assert killed.returncode == 0, killed.stderr
        assert terminal.process.wait(20) == 137
    assert json.loads(server.cli("sessions", "list", "-s", sprite.name, "--json").stdout) == []


@proves("cli: checkpoint create --comment, list, info, delete, restore", COMMAND_LINE)
def test_checkpoints(server: serving.Server, sprite: Any) -> None:
    def checkpoint(*words: str) -> bytes:
        done = server.cli("checkpoint", *words[:1], "-s", sprite.name, *words[1:])
        assert done.returncode == 0, done.stderr
        return done.stdout

    serving.run(sprite, "echo one > state")
    assert checkpoint("create", "--comment", "the first") == b"v1\n"
    serving.run(sprite, "echo two > state")
    assert checkpoint("create") == b"v2\n"
    assert json.loads(checkpoint("info", "v1", "--json"))["comment"] == "the first"
    checkpoint("restore", "v1")
    assert serving.run(sprite, "cat state") == "one"
    checkpoint("delete", "v2")
    assert [each["id"] for each in json.loads(checkpoint("list", "--json"))] == ["v1"]
    every = [each["id"] for each in json.loads(checkpoint("list", "--include-auto", "--json"))]
    assert len(every) == 2 and every[0] == "v1"
    assert "the first" in checkpoint("list").decode()


@proves("cli: proxy -W, as ssh's ProxyCommand", COMMAND_LINE)
def test_one_connection(server: serving.Server, sprite: Any) -> None:
    script = "import socket\ns = socket.create_server(('127.0.0.1', 7070))\nwhile c := s.accept()[0]:\n"
    script += "    c.sendall(c.recv(100).upper()); c.close()"
    listening = server.start_cli(
        "exec", "-s", sprite.name, "--no-port-forward", "--", "python3", "-c", script
    )
    try:
        serving.until(
            lambda: server.cli("proxy", "-s", sprite.name, "-W", ":7070", input=b"a").stdout == b"A"
        )
        done = server.cli("proxy", "-s", sprite.name, "-W", "localhost:7070", input=b"hello")
        assert (done.returncode, done.stdout) == (0, b"HELLO")
    finally:
        listening.send_signal(signal.SIGTERM)
        listening.wait(20)


class Terminal:
    """A command of ours on a terminal of 24 rows and 80 columns."""

    def __init__(self, server: serving.Server, *words: str) -> None:
        self._server = server
        self._words = words

    def __enter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = self._server.start_cli(*self._words, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def write(self, text: str) -> None:
        os.write(self._master, text.encode())

    def until(self, text: str) -> str:
        """What is shown, as soon as ``text`` is in it."""
        shown = b""
        while text.encode() not in shown:
            assert select.select([self._master], [], [], 30)[0], shown
            shown += os.read(self._master, 4096)
        return shown.decode(errors="replace")
