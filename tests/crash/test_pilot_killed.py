"""SIGKILL of a sprite's pilot: a new one takes its place, and the processes notice nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import serving


def _pilot(server: serving.Server, sprite: Any) -> int:
    with server.http() as http:
        identity = http.get(f"/v1/sprites/{sprite.name}").json()["id"]
    return int(Path(f"/run/spriggan/{server.instance}/{identity}/pilot").read_text().split()[0])


def test_processes_network_and_files_go_on(server: serving.Server, sprite: Any) -> None:
    serving.run(sprite, "(sleep 5151 &); echo kept > file")
    first = _pilot(server, sprite)
    os.kill(first, signal.SIGKILL)
    assert serving.run(sprite, "cat file; pgrep -fc '[s]leep 5151'") == "kept\n1"
    assert _pilot(server, sprite) != first
    with server.http() as http:
        assert "pilot" in http.get(f"/v1/sprites/{sprite.name}").json()["last_error"]
    assert serving.run(sprite, "getent hosts deb.debian.org >/dev/null && echo resolved") == "resolved"
    assert (sprite.filesystem("/home/sprite") / "file").read_text() == "kept\n"
    serving.finished(sprite.create_checkpoint("with the new pilot"))
    serving.finished(sprite.restore_checkpoint("v1"))
    assert serving.run(sprite, "cat file") == "kept"


def test_the_end_of_everything_inside_is_a_cold_sprite_that_says_so(
    server: serving.Server, sprite: Any
) -> None:
    serving.run(sprite, "echo kept > file; sync")
    sprite.run("sudo", "sh", "-c", "kill -9 -1; kill -TERM 1 $(pgrep -P 1)", capture_output=True)
    deadline = time.monotonic() + 10
    while (said := serving.run(sprite, "cat file", check=False)) != "kept":
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    with server.http() as http:
        assert http.get(f"/v1/sprites/{sprite.name}").json()["last_error"]
