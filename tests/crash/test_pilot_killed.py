"""SIGKILL of a sprite's pilot: a new one takes its place, and the processes notice nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

from sprites import SpriteError
from sprites.services import get_service, stop_service

import serving


def test_processes_network_and_files_go_on(server: serving.Server, sprite: Any) -> None:
    serving.run(sprite, "(sleep 5151 &); echo kept > file")
    first = serving.pilot(server, sprite.name)
    os.kill(first, signal.SIGKILL)
    assert serving.run(sprite, "cat file; pgrep -fc '[s]leep 5151'") == "kept\n1"
    second = serving.pilot(server, sprite.name)
    assert second != first
    with server.http() as http:
        known = http.get(f"/v1/sprites/{sprite.name}").json()
    assert "pilot" in known["last_error"]
    # The output of its sessions is nobody's any more.
    spools = [path.name for path in (server.data / "spool" / known["id"]).iterdir()]
    assert spools and all(name.startswith(f"{second}-") for name in spools), spools
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
    while True:
        try:
            said = serving.run(sprite, "cat file", check=False)
        except SpriteError as error:  # the pilot ended over this very request
            said = str(error)
        if said == "kept":
            break
        assert time.monotonic() < deadline, said
        time.sleep(0.1)
    with server.http() as http:
        assert http.get(f"/v1/sprites/{sprite.name}").json()["last_error"]


def test_services_go_on_and_the_next_pilot_finds_them(server: serving.Server, sprite: Any) -> None:
    count = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done"
    sprite.create_service("counter", "sh", ["-c", count], duration=0.5)
    sprite.create_service("stopped", "sleep", ["1000"], duration=0.1)
    stop_service(sprite, "stopped")
    before = get_service(sprite, "counter").state
    os.kill(serving.pilot(server, sprite.name), signal.SIGKILL)
    time.sleep(1)  # it writes on, into its pipe
    after = get_service(sprite, "counter").state
    assert (after.pid, after.started_at, after.restart_count) == (before.pid, before.started_at, 0)
    assert after.status == "running"
    assert get_service(sprite, "stopped").state.status == "stopped"
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}/services/counter/logs"
        events = [json.loads(line) for line in http.get(path, params={"lines": 9999}).text.splitlines()]
    numbers = [int(event["data"].split()[1]) for event in events if event["type"] == "stdout"]
    missing = set(range(1, numbers[-1] + 1)) - set(numbers)
    assert numbers == sorted(numbers) and len(missing) <= 20, missing  # what the dead pilot had in its hands
    # It is looked after as before.
    serving.run(sprite, f"kill -9 {after.pid}")
    deadline = time.monotonic() + 20
    while (state := get_service(sprite, "counter").state).restart_count != 1 or state.status != "running":
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    assert state.pid != after.pid
    assert [event.type for event in stop_service(sprite, "counter")][-2:] == ["stopped", "complete"]


def test_a_service_that_ends_while_there_is_no_pilot_is_started_again(
    server: serving.Server, sprite: Any
) -> None:
    sprite.create_service("s", "sh", ["-c", "sleep 2; exit 1"], duration=0.1)
    before = get_service(sprite, "s").state
    os.kill(serving.pilot(server, sprite.name), signal.SIGKILL)
    time.sleep(2.5)
    deadline = time.monotonic() + 30  # it waits a while before it is started again
    while (after := get_service(sprite, "s").state).pid in (None, before.pid):
        assert time.monotonic() < deadline, after
        time.sleep(0.1)


def test_tasks_outlive_the_pilot(server: serving.Server, sprite: Any) -> None:
    serving.run(sprite, "sprite-env tasks create build --expire 30m")
    os.kill(serving.pilot(server, sprite.name), signal.SIGKILL)
    assert '"build"' in serving.run(sprite, "sprite-env tasks list")
