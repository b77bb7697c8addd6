"""The main job, by the official client and by the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import serving

SOURCE = '#include <stdio.h>\nint main(void) { puts("built"); return 7; }\n'
LOOK = "find /home/sprite /usr/lib/python3 -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"


def test_with_the_official_client(server: serving.Server, new_name: Callable[[], str]) -> None:
    client = server.client()
    name = new_name()
    sprite = client.create_sprite(name)
    assert sprite.name == name
    files = sprite.filesystem("/home/sprite")
    data = os.urandom(3 << 20)
    (files / "hello.c").write_text(SOURCE)
    (files / "data").write_bytes(data)
    assert (files / "data").read_bytes() == data
    done = sprite.run("sh", "-c", "cc -o hello hello.c && ./hello", capture_output=True)
    assert (done.returncode, done.stdout) == (7, b"built\n")
    before = serving.run(sprite, LOOK)

    assert "  ID: v1" in serving.finished(sprite.create_checkpoint("first"))
    serving.run(sprite, "cd /; sudo rm -rf /usr/lib/python3 /home/sprite")
    # Without its home a command starts in /, so that one can still look and mend.
    assert serving.run(sprite, "test -e /home/sprite || echo gone; pwd") == "gone\n/"
    serving.finished(sprite.restore_checkpoint("v1"))
    assert serving.run(sprite, LOOK) == before
    assert [c.id for c in sprite.list_checkpoints()] == ["Current", "v1"]

    with server.http() as http:
        answer = http.post(f"/v1/sprites/{name}/fork", json={"name": f"{name}-fork"})
    assert answer.status_code == 201, answer.text
    fork = client.get_sprite(f"{name}-fork")
    serving.run(sprite, "echo one > ~/side")
    serving.run(fork, "echo two > ~/side")
    assert serving.run(sprite, "cat ~/side; hostname") == f"one\n{name}"
    assert serving.run(fork, "cat ~/side; hostname; cat /etc/hostname") == f"two\n{name}-fork\n{name}-fork"
    assert serving.run(sprite, "cat /etc/machine-id") != serving.run(fork, "cat /etc/machine-id")
    fork.delete()
    sprite.delete()
    assert name not in [s.name for s in client.list_all_sprites()]


def test_with_the_command_line(server: serving.Server, new_name: Callable[[], str]) -> None:
    name = new_name()

    def cli(*arguments: str, input: bytes | None = None, code: int = 0) -> bytes:
        done = server.cli(*arguments, input=input)
        assert done.returncode == code, (arguments, done)
        return done.stdout

    cli("create", name)
    assert cli("exec", "-s", name, "--", "sh", "-c", "cat > f; wc -c < f", input=b"12345") == b"5\n"
    cli("exec", "-s", name, "--", "sh", "-c", "exit 42", code=42)
    assert (
        cli("exec", "-s", name, "--env", "A=1,B=2", "--dir", "/tmp", "--", "sh", "-c", "echo $A$B $PWD")
        == b"12 /tmp\n"
    )
    assert cli("checkpoint", "create", "-s", name, "--comment", "one").strip() == b"v1"
    cli("exec", "-s", name, "--", "rm", "f")
    cli("checkpoint", "restore", "-s", name, "v1")
    assert cli("exec", "-s", name, "--", "cat", "f") == b"12345"
    listed = json.loads(cli("checkpoint", "list", "-s", name, "--json"))
    assert "v1" in [c["id"] for c in listed]
    cli("fork", name, f"{name}-b")
    assert cli("exec", "-s", f"{name}-b", "--", "cat", "f") == b"12345"
    names = {s["name"]: s["status"] for s in json.loads(cli("list", "--json"))}
    assert names[name] == "running"
    cli("stop", name)
    assert json.loads(cli("info", name, "--json"))["status"] == "cold"
    assert cli("exec", "-s", name, "--", "cat", "f") == b"12345"
    cli("destroy", "--force", name)
    cli("destroy", "--force", f"{name}-b")
    error = server.cli("info", name)
    assert error.returncode != 0 and b"hint" in error.stderr


def test_what_is_acknowledged_shows_in_the_sprite_object(sprite: Any, server: serving.Server) -> None:
    with server.http() as http:
        found = http.get(f"/v1/sprites/{sprite.name}").json()
    assert found["status"] in ("cold", "warm", "running")
    assert found["config"]["storage_gb"] == 20 and found["config"]["ram_mb"] == 2048
