"""Servers that the command line remembers, row by row, against a real server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import serving
from proof import COMMAND_LINE, proves

NewName = Callable[[], str]


class Person:
    """Runs the command as somebody with a home of their own, and nothing in the environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.file = home / ".config/spriggan/servers.json"
        left_out = ("SPRITE", "XDG_")
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}

    def __call__(self, *words: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [serving.SPRIGGAN, *words],
            input=input,
            capture_output=True,
            text=True,
            cwd=self.home,
            env=self._environment | {"HOME": str(self.home)} | environment,
            timeout=60,
            check=False,
        )

    def at_a_terminal(self, *words: str, typed: bytes, **environment: str) -> str:
        """What somebody sees who types ``typed`` when the first question comes."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [serving.SPRIGGAN, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=self.home,
            env=self._environment | {"HOME": str(self.home)} | environment,
            start_new_session=True,
        )
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
                if typed and seen.rstrip().endswith(b":"):
                    os.write(ours, typed)
                    typed = b""
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(ours)
        assert process.wait(60) == 0, seen
        return seen.decode()


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


@proves("cli: login API-URL, logout", COMMAND_LINE)
def test_login_and_logout(server: serving.Server, sprite: Any, person: Person) -> None:
    done = person("login", f"{server.url}/", input=f"{server.token}\n")
    assert done.returncode == 0 and server.url in done.stdout and server.token not in done.stdout
    assert person.file.stat().st_mode & 0o777 == 0o600
    assert sprite.name in person("list").stdout
    assert person("exec", "-s", sprite.name, "--", "echo", "hello").stdout == "hello\n"
    assert person("logout").returncode == 0
    assert server.token not in person.file.read_text()
    assert sprite.name not in person("list").stdout
    assert person("logout").returncode == 1


def test_login_asks_at_a_terminal_and_does_not_show_the_answer(
    server: serving.Server, sprite: Any, person: Person
) -> None:
    seen = person.at_a_terminal("login", server.url, typed=f"{server.token}\n".encode())
    assert "Token:" in seen and server.token not in seen
    assert sprite.name in person("list").stdout


def test_only_what_works_is_remembered(server: serving.Server, person: Person) -> None:
    for url, token in (
        (server.url, "wrong"),
        (server.url, ""),
        (server.url, "two words"),
        ("http://127.0.0.1:1", server.token),
        ("ftp://x", server.token),
        (f"{server.url}/v1", server.token),
    ):
        done = person("login", url, input=token)
        assert done.returncode == 1 and "hint:" in done.stderr, (url, done)
    assert person("login").returncode == 2
    assert not person.file.exists()


@proves("cli: auth setup --token", COMMAND_LINE)
def test_a_token_without_a_question(server: serving.Server, sprite: Any, person: Person) -> None:
    assert person("auth", "setup", "--token", server.token).returncode == 2  # which server?
    assert person("auth", "setup", "--token", server.token, SPRITES_API_URL=server.url).returncode == 0
    assert sprite.name in person("list").stdout


@proves("cli: org list, auth, logout; -o, --org and SPRITE_ORG choose a server", COMMAND_LINE)
def test_several_servers(server: serving.Server, sprite: Any, person: Person, new_name: NewName) -> None:
    # Two names of one server are two servers to whoever remembers them.
    other = server.url.replace("127.0.0.1", "localhost")
    for url in (server.url, other):
        assert person("org", "auth", url, input=server.token).returncode == 0
    listed = json.loads(person("org", "list", "--json").stdout)
    organization = server.token.split("/")[0]
    assert listed == [
        {"url": server.url, "organization": organization, "current": False},
        {"url": other, "organization": organization, "current": True},
    ]
    assert server.token not in person("org", "list").stdout
    for words in (["list", "-o", "127.0.0.1"], ["--org", server.url, "list"]):
        assert sprite.name in person(*words).stdout
    assert sprite.name in person("list", SPRITE_ORG="127.0.0.1").stdout
    ambiguous = person("list", "-o", organization)
    assert ambiguous.returncode == 1 and "2 servers" in ambiguous.stderr
    assert "org list" in person("list", "-o", "nobody").stderr
    assert person("org", "use", "127.0.0.1").returncode == 0
    assert [each["current"] for each in json.loads(person("org", "list", "--json").stdout)] == [True, False]
    assert person("org", "logout", "localhost").returncode == 0
    assert sprite.name in person("list", "-o", organization).stdout


def test_what_is_said_goes_before_what_is_remembered(
    server: serving.Server, sprite: Any, person: Person
) -> None:
    assert person("login", server.url, input=server.token).returncode == 0
    assert "127.0.0.1:1 " in person("list", SPRITES_API_URL="http://127.0.0.1:1", SPRITE_TOKEN="t").stderr
    assert "login http://127.0.0.1:1" in person("list", SPRITES_API_URL="http://127.0.0.1:1").stderr
    assert str(person.home) in person("--data", str(person.home), "list").stderr
    # The URL alone is enough where its token is remembered.
    assert sprite.name in person("list", SPRITES_API_URL=server.url).stdout
    assert person("list", SPRITES_API_URL=server.url, SPRITE_TOKEN="wrong").returncode == 1


def test_a_revoked_token_and_a_damaged_file_say_what_to_do(server: serving.Server, person: Person) -> None:
    made = json.loads(server.cli("token", "create", "short", "--json").stdout)["token"]
    assert person("login", server.url, input=made).returncode == 0
    [identity] = [
        each["id"]
        for each in json.loads(server.cli("token", "list", "--json").stdout)
        if each["label"] == "short"
    ]
    assert server.cli("token", "revoke", identity).returncode == 0
    assert f"spriggan login {server.url}" in person("list").stderr
    for content in ("", "[]", '{"servers": 1}', '{"servers": [{}], "current": null}', "\0" * 10):
        person.file.write_text(content)
        done = person("list")
        assert done.returncode == 1 and str(person.file) in done.stderr and "login" in done.stderr


@proves("cli: create without a name", COMMAND_LINE)
def test_a_name_is_made_up(server: serving.Server) -> None:
    made = json.loads(server.cli("create", "--skip-console", "--json").stdout)
    assert server.cli("destroy", "--force", made["name"]).returncode == 0
    assert server.cli("create", "", "--skip-console").returncode == 1, "an unset variable is no wish"


@proves("cli: use without a name asks for one", COMMAND_LINE)
def test_a_sprite_is_picked(server: serving.Server, sprite: Any, person: Person) -> None:
    assert person("login", server.url, input=server.token).returncode == 0
    names = [each["name"] for each in json.loads(person("list", "--json").stdout)]
    number = names.index(sprite.name) + 1
    assert sprite.name in person.at_a_terminal("use", typed=f"{number}\n".encode())
    assert json.loads((person.home / ".sprite").read_text())["sprite"] == sprite.name
    assert person("use").returncode == 2, "nobody is asked without a terminal"
