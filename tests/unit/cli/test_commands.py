"""Everything but exec: what is sent, what is shown, and how errors read."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from spriggan import __version__
from spriggan.cli.main import COMMANDS

from .conftest import Spriggan
from .playing import TOKEN, PlayedServer

VERBS = {
    "sessions": ["list", "attach", "kill"],
    "checkpoint": ["create", "list", "info", "restore", "delete"],
    "image": ["build", "list", "show", "rm"],
    "pool": ["show", "trim"],
    "token": ["create", "list", "revoke"],
    "file": ["push", "pull"],
    "url": ["update"],
    "config": ["update"],
    "policy": ["get", "set", "clear"],
}


@pytest.mark.parametrize(
    "words", [[noun, *verb] for noun in COMMANDS for verb in ([], *([v] for v in VERBS.get(noun, [])))]
)
def test_every_help_page_has_an_example(spriggan: Spriggan, words: list[str]) -> None:
    result = spriggan(*words, "--help", data=False)
    assert result.returncode == 0, result.stderr
    text = result.stdout.decode()
    assert re.search(rf"Example:\n( .*\n)*? .*spriggan {words[0]}", text), text


def test_version(spriggan: Spriggan) -> None:
    assert spriggan("version").stdout.decode() == f"spriggan {__version__}\n"


def test_start_is_light() -> None:
    """Whatever ``version`` imports is paid for by every command."""
    code = "import sys; from spriggan.cli.main import run; run(['version']); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"httpx", "websockets", "fastapi", "sqlalchemy", "asyncio"} & set(loaded)


def test_create_sends_only_what_was_said(spriggan: Spriggan, server: PlayedServer) -> None:
    assert spriggan("create", "dev").returncode == 0
    arguments = ["create", "big", "--ram", "8192", "--storage", "9", "--env", "A=1", "--label", "x", "--json"]
    result = spriggan(*arguments)
    made = json.loads(result.stdout)
    assert made["config"] == {"ram_mb": 8192, "storage_gb": 9}
    assert (made["environment"], made["labels"]) == ({"A": "1"}, ["x"])
    assert "config" not in server.sprites["dev"]


def test_the_servers_refusal_is_a_sentence_and_a_hint(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    result = spriggan("create", "dev")
    assert result.returncode == 1
    assert result.stdout == b""
    assert result.stderr == b"spriggan: the sprite dev exists\n  hint: choose another name\n"


def test_list_reads_all_pages(spriggan: Spriggan, server: PlayedServer) -> None:
    for number in range(120):
        server.add(f"s{number:03}")
    server.add("other")
    result = spriggan("list", "--prefix", "s", "--json")
    assert [sprite["name"] for sprite in json.loads(result.stdout)] == [f"s{n:03}" for n in range(120)]
    lines = spriggan("ls").stdout.decode().splitlines()
    assert lines[0].split()[:2] == ["NAME", "STATUS"]
    assert len(lines) == 122


def test_list_to_a_reader_that_goes_away(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev", labels=["x" * 200_000])
    process = spriggan.start("list", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    process.stdout.close()
    assert process.wait(timeout=20) == 1
    assert process.stderr
    assert process.stderr.read() == b""


def test_use_chooses_for_this_directory(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    assert spriggan("use", "dev").returncode == 0
    assert json.loads((spriggan.cwd / ".sprite").read_text()) == {"organization": "home", "sprite": "dev"}
    assert b"dev" in spriggan("info").stdout
    assert spriggan("use", "--unset").returncode == 0
    result = spriggan("info")
    assert result.returncode == 1
    assert result.stderr.startswith(b"spriggan: no sprite is named\n  hint: ")


def test_use_of_what_does_not_exist_changes_nothing(spriggan: Spriggan, server: PlayedServer) -> None:
    assert spriggan("use", "ghost").returncode == 1
    assert not (spriggan.cwd / ".sprite").exists()


def test_damaged_sprite_file(spriggan: Spriggan, server: PlayedServer) -> None:
    (spriggan.cwd / ".sprite").write_text("{")
    result = spriggan("info")
    assert result.returncode == 1
    assert b"'spriggan use NAME'" in result.stderr


def test_names_stay_inside_their_path_segment(spriggan: Spriggan, server: PlayedServer) -> None:
    spriggan("info", "../../secret?x=1")
    assert server.requests == [("GET", "/v1/sprites/../../secret?x=1?")] or not server.requests
    assert spriggan("info", "..").returncode == 1


def test_two_different_names(spriggan: Spriggan, server: PlayedServer) -> None:
    assert b"two sprites are named" in spriggan("-s", "a", "info", "b").stderr


def test_destroy_wants_a_yes(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    result = spriggan("destroy", "dev")
    assert result.returncode == 1
    assert b"--force" in result.stderr
    assert "dev" in server.sprites
    assert spriggan("destroy", "dev", "--force").returncode == 0
    assert not server.sprites


@pytest.mark.parametrize("answer", ["y", "n"])
def test_destroy_asks_at_a_terminal(spriggan: Spriggan, server: PlayedServer, answer: str) -> None:
    server.add("dev")
    master, slave = os.openpty()
    try:
        process = spriggan.start("destroy", "dev", stdin=slave, stdout=slave, stderr=slave)
        os.write(master, answer.encode() + b"\n")
        assert process.wait(timeout=20) == (0 if answer == "y" else 130)
    finally:
        os.close(master)
        os.close(slave)
    assert ("dev" in server.sprites) == (answer == "n")


def test_fork(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    assert spriggan("fork", "dev", "copy", "--checkpoint", "v1").returncode == 0
    assert spriggan("fork", "-s", "dev", "copy2").returncode == 0
    assert (server.sprites["copy"]["checkpoint"], server.sprites["copy2"]["checkpoint"]) == ("v1", None)
    assert spriggan("fork").returncode == 2


def test_stop_all_leaves_cold_ones_alone(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("warm", status="warm")
    server.add("cold")
    assert spriggan("stop", "--all").stdout == b"Stopped warm\n"


def test_checkpoints(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    made = spriggan("checkpoint", "create", "-s", "dev", "--comment", "first\x1b[2J")
    assert (made.returncode, made.stdout, made.stderr) == (0, b"v1\n", b"  ID: v1\n")
    listed = spriggan("checkpoint", "list", "-s", "dev")
    assert b"first\\x1b[2J" in listed.stdout
    assert b"Current" not in listed.stdout
    restored = spriggan("checkpoint", "restore", "-s", "dev", "v1")
    assert (restored.stdout, restored.stderr) == (b"Restored\n", b"Restoring\n")


def test_an_error_in_a_stream_is_an_error(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    result = spriggan("checkpoint", "create", "-s", "dev", "--comment", "full")
    assert (result.returncode, result.stderr) == (1, b"Freezing\nspriggan: the pool is full\n")


def test_a_stream_that_is_cut_is_an_error(spriggan: Spriggan, server: PlayedServer) -> None:
    server.add("dev")
    result = spriggan("checkpoint", "create", "-s", "dev", "--comment", "cut")
    assert result.returncode == 1
    assert b"ended its answer early" in result.stderr


def test_server_by_environment(spriggan: Spriggan, server: PlayedServer, tmp_path: Path) -> None:
    server.add("dev")
    env = {"SPRITES_API_URL": server.url + "/", "SPRITE_TOKEN": TOKEN}
    assert spriggan("info", "dev", env=env, data=False).returncode == 0
    assert spriggan("exec", "-s", "dev", "--", "echo", "hi", env=env, data=False).stdout == b"hi\n"
    result = spriggan("info", "dev", env=env | {"SPRITE_TOKEN": "wrong"}, data=False)
    assert result.returncode == 1
    assert b"spriggan token create" in result.stderr


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"SPRITES_API_URL": "http://127.0.0.1:1"}, b"SPRITE_TOKEN is not"),
        ({"SPRITES_API_URL": "ftp://x", "SPRITE_TOKEN": "t"}, b"not an http or https URL"),
        ({"SPRITES_API_URL": "http://127.0.0.1:1", "SPRITE_TOKEN": "a\nb"}, b"no token has"),
        (
            {"SPRITES_API_URL": "http://127.0.0.1:1", "SPRITE_TOKEN": "t"},
            b"no server answers at http://127.0.0.1:1",
        ),
        ({}, b"no server answers at "),
    ],
)
@pytest.mark.parametrize(
    "words", [["list"], ["exec", "-s", "dev", "--", "true"], ["checkpoint", "restore", "-s", "d", "v1"]]
)
def test_no_server(spriggan: Spriggan, env: dict[str, str], said: bytes, words: list[str]) -> None:
    result = spriggan(*words, env=env)
    assert result.returncode == 1
    assert said in result.stderr
    assert b"  hint: " in result.stderr
    assert result.stderr.count(b"\n") == 2


def test_something_else_listens(spriggan: Spriggan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        env = {"SPRITES_API_URL": f"http://127.0.0.1:{listener.getsockname()[1]}", "SPRITE_TOKEN": "t"}
        process = subprocess.Popen(
            spriggan.command("list"), env=spriggan.env | env, stderr=subprocess.PIPE, cwd=spriggan.cwd
        )
        with listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops")
        errors = process.communicate(timeout=20)[1]
    assert b"answered with status 502" in errors
    assert b"is a Spriggan server listening there?" in errors


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_socket_of_another_user(spriggan: Spriggan, server: PlayedServer) -> None:
    server.data.chmod(0o700)
    # Whoever else it is can read this Python, wherever it lies.
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *reading]
    command = [*somebody, *spriggan.command("list")]
    result = subprocess.run(command, capture_output=True, env=spriggan.env, cwd="/", check=False, timeout=30)
    assert b"is for the user who runs the server" in result.stderr


def test_unknown_command_and_option(spriggan: Spriggan) -> None:
    for words in (["frobnicate"], ["list", "--frobnicate"], ["fork"]):
        result = spriggan(*words)
        assert result.returncode == 2
        assert result.stderr.startswith(b"spriggan: ")
        assert b"--help' shows how" in result.stderr


def test_print_unit(spriggan: Spriggan) -> None:
    result = spriggan("serve", "--data", "/srv/my data", "--listen", ":8000", "--print-unit", data=False)
    assert result.returncode == 0, result.stderr
    unit = result.stdout.decode()
    assert "KillMode=process\nDelegate=yes\n" in unit
    assert re.search(r'ExecStart=\S+spriggan serve --data "/srv/my data" --listen :8000\n', unit)


def test_bad_listen_address(spriggan: Spriggan) -> None:
    result = spriggan("serve", "--listen", "nowhere")
    assert result.returncode == 1
    assert b"is not HOST:PORT" in result.stderr


def test_down_of_no_data_directory(spriggan: Spriggan) -> None:
    result = spriggan("down")
    assert result.returncode == 1
    assert b"hint: " in result.stderr


def test_image_commands_without_images(spriggan: Spriggan) -> None:
    assert json.loads(spriggan("image", "list", "--json").stdout) == []
    result = spriggan("image", "show")
    assert result.returncode == 1
    assert b"there is no image" in result.stderr
