"""The official command line's commands, as processes, against a real server."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import serving
from proof import COMMAND_LINE, proves


@proves("cli: exec --http-post", COMMAND_LINE)
def test_exec_by_http_post(server: serving.Server, sprite: Any) -> None:
    data = os.urandom(3_000_000)
    done = server.cli("exec", "-s", sprite.name, "--http-post", "--", "cat", input=data)
    assert (done.returncode, done.stdout) == (0, data)
    script = "echo out; echo err >&2; pwd; echo $A; exit 7"
    words = ["-s", sprite.name, "--http-post", "--no-stdin", "--dir", "/tmp", "--env", "A=b"]
    done = server.cli("exec", *words, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n/tmp\nb\n", b"err\n")
    done = server.cli("exec", "-s", "nobody", "--http-post", "--", "true")
    assert done.returncode == 1 and b"sprite not found" in done.stderr and b"hint" in done.stderr
    done = server.cli("exec", "-s", sprite.name, "--http-post", "--tty", "--", "true")
    assert done.returncode == 2


@proves("cli: file push, pull, -r, -p", COMMAND_LINE)
def test_files_go_both_ways(server: serving.Server, sprite: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "run").write_text("#!/bin/sh\necho ran\n")
    (tree / "run").chmod(0o755)
    (tree / "sub" / "data").write_bytes(os.urandom(5_000_000))
    (tree / "sub" / "ä b").write_text("x")
    assert server.cli("file", "push", "-s", sprite.name, str(tree), "there").returncode == 1  # needs -r
    done = server.cli("file", "push", "-s", sprite.name, "-r", "-p", str(tree), "/home/sprite/there")
    assert done.returncode == 0, done.stderr
    assert serving.run(sprite, "there/run; stat -c %U there/run; ls there/sub | wc -l") == "ran\nsprite\n2"
    back = tmp_path / "back"
    done = server.cli("file", "pull", "-s", sprite.name, "-r", "-p", "there", str(back))
    assert done.returncode == 0, done.stderr
    for name in ("run", "sub/data", "sub/ä b"):
        assert (back / name).read_bytes() == (tree / name).read_bytes()
    assert (back / "run").stat().st_mode & 0o777 == 0o755
    (tmp_path / "here").mkdir()
    assert server.cli("file", "pull", "-s", sprite.name, "there/run", str(tmp_path / "here")).returncode == 0
    assert (tmp_path / "here" / "run").exists()
    missing = server.cli("file", "pull", "-s", sprite.name, "/no/such", str(tmp_path / "none"))
    assert missing.returncode == 1 and not (tmp_path / "none").exists()
    assert not list(tmp_path.rglob(".spriggan-*"))
    notes = tmp_path / "notes"
    notes.write_text("hello")
    words = ["exec", "-s", sprite.name, "--file", f"{notes}:/tmp/notes", "--", "cat", "/tmp/notes"]
    assert server.cli(*words).stdout == b"hello"
    assert server.cli("exec", "-s", sprite.name, "--file", "nothing", "--", "true").returncode == 1


@proves("cli: url, url update, config update, upgrade --check, --version", COMMAND_LINE)
def test_settings_health_and_restarts(server: serving.Server, sprite: Any) -> None:
    name = sprite.name
    serving.run(sprite, "touch /dev/shm/x")
    assert json.loads(server.cli("check", name, "--json").stdout)["status"] == "healthy"
    assert server.cli("restart", name).stdout == f"Restarted {name}\n".encode()
    assert serving.run(sprite, "ls /dev/shm") == ""
    assert b"version" in server.cli("upgrade", "--check", name).stdout
    assert server.cli("upgrade", name).returncode == 0
    refused = server.cli("upgrade", name, "--version", "99.1.1")
    assert refused.returncode == 1 and b"only" in refused.stderr
    assert server.cli("url", "update", "-s", name, "-a", "public").returncode == 0
    assert json.loads(server.cli("url", "-s", name, "--json").stdout)["url_settings"]["auth"] == "public"
    changed = server.cli("config", "update", "-s", name, "--url-auth", "sprite", "--label", "ci")
    assert changed.returncode == 0, changed.stderr
    shown = json.loads(server.cli("info", name, "--json").stdout)
    assert (shown["labels"], shown["url_settings"]["auth"]) == (["ci"], "sprite")
    assert server.cli("config", "update", "-s", name).returncode == 1


def test_policies(server: serving.Server, sprite: Any) -> None:
    rules = {"rules": [{"domain": "a.example", "action": "allow"}]}
    words = ["policy", "set", "-s", sprite.name, "network"]
    assert server.cli(*words, json.dumps(rules)).returncode == 0
    assert json.loads(server.cli("policy", "get", "-s", sprite.name, "network").stdout) == rules
    assert server.cli(*words, "-", input=b'{"rules": []}').returncode == 0
    assert json.loads(server.cli("policy", "get", "-s", sprite.name, "network").stdout) == {"rules": []}
    bad = server.cli(*words, "{")
    assert bad.returncode == 1 and b"not JSON" in bad.stderr
    assert server.cli("policy", "clear", "-s", sprite.name, "network").returncode == 0
    assert server.cli("policy", "clear", "-s", sprite.name, "resources").returncode == 0


@proves("cli: api, with -s below a sprite", COMMAND_LINE)
def test_the_api_with_curl(server: serving.Server, sprite: Any, tmp_path: Path) -> None:
    done = server.cli("api", "-s", sprite.name, "/checkpoints", "--", "-s", "-f")
    assert done.returncode == 0 and json.loads(done.stdout)[0]["id"] == "Current"
    done = server.cli("api", "/v1/sprites?prefix=none", "--", "-s")
    assert json.loads(done.stdout)["sprites"] == []
    words = ["-s", "-X", "POST", "-H", "Content-Type: application/json", "-d", '{"comment": "by curl"}']
    assert b"complete" in server.cli("api", "-s", sprite.name, "checkpoint", "--", *words).stdout
    # The same by the socket, which needs no token.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SPRITE")}
    command = [serving.SPRIGGAN, "api", "--data", str(server.data), "/v1/organization", "--", "-s"]
    local = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert json.loads(local.stdout)["organization"]["slug"] == server.token.split("/")[0]


@proves("cli: restore, checkpoint rm, list --history", COMMAND_LINE)
def test_short_forms(server: serving.Server, sprite: Any) -> None:
    serving.run(sprite, "echo one > state; sync")
    assert server.cli("checkpoint", "create", "-s", sprite.name).stdout == b"v1\n"
    assert server.cli("checkpoint", "create", "-s", sprite.name).stdout == b"v2\n"
    serving.run(sprite, "echo two > state; sync")
    assert server.cli("restore", "-s", sprite.name, "v1").returncode == 0
    assert serving.run(sprite, "cat state") == "one"
    assert server.cli("checkpoint", "create", "-s", sprite.name).stdout == b"v3\n"
    words = ["checkpoint", "list", "-s", sprite.name, "--history", "v1", "--json"]
    assert [entry["id"] for entry in json.loads(server.cli(*words).stdout)] == ["v1", "v2", "v3"]
    assert server.cli("checkpoint", "rm", "-s", sprite.name, "v2").returncode == 0
    words = ["checkpoint", "list", "-s", sprite.name, "--json"]
    assert [entry["id"] for entry in json.loads(server.cli(*words).stdout)] == ["v1", "v3"]
    left = server.cli("exec", "-s", sprite.name, "--http-post", "--no-stdin", "--", "echo", "seen")
    assert left.stdout == b"seen\n"


@proves("cli: list --watch", COMMAND_LINE)
def test_a_watched_list_goes_on_until_ctrl_c(server: serving.Server, new_name: Callable[[], str]) -> None:
    name = f"w{new_name()}"
    watching = server.start_cli("list", "--watch", "--prefix", name, "--json", stdout=subprocess.PIPE)
    assert watching.stdout
    sprite = server.client().create_sprite(name)
    assert json.loads(watching.stdout.readline())["name"] == name
    sprite.delete()
    while json.loads(watching.stdout.readline())["status"] != "destroyed":
        pass
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130


@proves("cli: create opens a console on a terminal", COMMAND_LINE)
def test_create_on_a_terminal_opens_a_console(server: serving.Server, new_name: Callable[[], str]) -> None:
    name = new_name()
    master, slave = pty.openpty()
    process = server.start_cli("create", name, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown, typed = b"", False
    try:
        while b"in-42" not in shown:
            assert select.select([master], [], [], 30)[0], shown
            shown += os.read(master, 4096)
            if not typed and f"console -s {name}".encode() in shown and b"sprite" in shown.split(b"\n", 1)[1]:
                os.write(master, b"echo in-$((40 + 2)); exit 3\n")
                typed = True
        assert process.wait(20) == 3
    finally:
        process.kill()
        os.close(master)
    server.client().delete_sprite(name)
