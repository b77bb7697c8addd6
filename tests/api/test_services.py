"""Services, by the official clients: defined, started in order, restarted, stopped, told from their logs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sprites.exceptions import APIError
from sprites.services import get_service, list_services, signal_service, start_service, stop_service

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves
from serving import until

TICKER = ["-c", "while :; do echo tick; echo tock >&2; sleep 0.1; done"]


def state(sprite: Any, name: str) -> Any:
    return get_service(sprite, name).state


def kinds(stream: Any) -> list[str]:
    return [event.type for event in stream]


@proves("services: create (PUT) streams what happens, and complete", PYTHON)
def test_create_streams_output_and_ends(sprite: Any) -> None:
    seen = list(sprite.create_service("ticker", "sh", TICKER, duration=1.0))
    assert seen[0].type == "started" and seen[-1].type == "complete"
    assert {(e.type, e.data) for e in seen[1:-1]} == {("stdout", "tick\n"), ("stderr", "tock\n")}
    assert all(isinstance(event.timestamp, int) for event in seen)
    path = "/.sprite/logs/services/ticker.log"
    assert seen[-1].log_files == {"combined": path, "stdout": path, "stderr": path}
    log = serving.run(sprite, f"head -2 {path}").splitlines()
    assert [line.split("Z ", 1)[1] for line in log] in (
        ["[stdout] tick", "[stderr] tock"],
        ["[stderr] tock", "[stdout] tick"],
    )


@proves("services: list", PYTHON)
@proves("services: get, with its state", PYTHON)
@proves("services: env, dir, the sprite's user", PYTHON)
def test_list_and_get_tell_definition_and_state(sprite: Any) -> None:
    arguments: dict[str, Any] = {"env": {"GREETING": "hi"}, "dir": "/tmp", "duration": 0.1}
    sprite.create_service("one", "sh", ["-c", "echo $GREETING $(pwd) $HOME; exec sleep 1000"], **arguments)
    sprite.create_service("two", "sleep", ["1000"], needs=["one"], duration=0.1)
    one, two = list_services(sprite)
    assert (one.name, one.cmd, one.env, one.dir) == ("one", "sh", {"GREETING": "hi"}, "/tmp")
    assert (two.args, two.needs, two.http_port) == (["1000"], ["one"], None)
    for service in (one, two):
        assert service.state.status == "running" and service.state.restart_count == 0
        assert service.state.error is None and service.state.next_restart_at is None
        assert abs(service.state.started_at.timestamp() - time.time()) < 600
    assert serving.run(sprite, f"tr '\\0' ' ' </proc/{one.state.pid}/cmdline") == "sleep 1000"
    assert serving.run(sprite, f"stat -c %U /proc/{one.state.pid}") == "sprite"
    assert serving.run(sprite, "cat /.sprite/logs/services/one.log").endswith("[stdout] hi /tmp /home/sprite")


@proves("services: one that is missing is 404", PYTHON)
def test_a_service_that_is_missing_is_404(sprite: Any) -> None:
    for work in (
        lambda: get_service(sprite, "no"),
        lambda: sprite.delete_service("no"),
        lambda: start_service(sprite, "no"),
        lambda: stop_service(sprite, "no"),
        lambda: signal_service(sprite, "no", "HUP"),
    ):
        with pytest.raises(Exception) as failure:
            work()
        assert "not found" in str(failure.value).lower()


@proves("services: stop, 409 if it is not running", PYTHON)
@proves("services: stop lasts beyond a cold start", PYTHON)
@proves("services: start", PYTHON)
@proves("services: started on a cold wake", PYTHON)
def test_stop_lasts_and_start_ends_it(sprite: Any, server: serving.Server) -> None:
    sprite.create_service(
        "s", "sh", ["-c", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done"], duration=0.3
    )
    # The signal goes to its children, too, of whose end the shell may say something.
    events = [event for event in stop_service(sprite, "s") if event.type != "stderr"]
    assert [event.type for event in events] == ["stopping", "stdout", "exit", "stopped", "complete"]
    assert events[1].data == "bye\n" and events[2].exit_code == 0
    assert state(sprite, "s").status == "stopped" and state(sprite, "s").pid is None
    with pytest.raises(APIError) as refused:
        stop_service(sprite, "s")
    assert refused.value.status_code == 409
    with pytest.raises(APIError) as refused:
        signal_service(sprite, "s", "HUP")
    assert refused.value.status_code == 409
    cold_start(server, sprite)
    assert state(sprite, "s").status == "stopped"
    assert kinds(start_service(sprite, "s", duration=0.1)) == ["started", "complete"]
    assert state(sprite, "s").status == "running"
    cold_start(server, sprite)
    until(lambda: state(sprite, "s").status == "running")


@proves("services: stop kills after its timeout, children too", PYTHON)
def test_stop_kills_what_does_not_listen(sprite: Any) -> None:
    script = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & while :; do sleep 0.1; done"
    sprite.create_service("deaf", "sh", ["-c", script, "deaf-child"], duration=0.3)
    events = list(stop_service(sprite, "deaf", timeout=0.5))
    assert [event.exit_code for event in events if event.type == "exit"] == [137]
    assert serving.run(sprite, "pgrep -fc '[d]eaf-child' || true") == "0"  # its child neither


@proves("services: restarted after a crash, never a stale pid", PYTHON)
def test_a_killed_process_is_started_again_with_back_off(sprite: Any) -> None:
    sprite.create_service("s", "sleep", ["1000"], duration=0.1)
    first = state(sprite, "s").pid
    serving.run(sprite, f"kill -9 {first}")
    failed = until(lambda: (found := state(sprite, "s")).status == "failed" and found)
    assert failed.pid is None and "137" in failed.error and failed.next_restart_at is not None
    again = until(lambda: (found := state(sprite, "s")).status == "running" and found)
    assert again.restart_count == 1 and again.pid != first and again.error is None
    signal_service(sprite, "s", "SIGTERM")
    until(lambda: (found := state(sprite, "s")).restart_count == 2 and found.status == "running")


@proves("services: back-off", PYTHON)
def test_the_time_between_restarts_grows(sprite: Any) -> None:
    events = list(sprite.create_service("s", "sh", ["-c", "exit 3"], duration=4.5))
    assert {event.exit_code for event in events if event.type == "exit"} == {3}
    starts = [event.timestamp for event in events if event.type == "started"]
    assert len(starts) >= 3
    assert starts[2] - starts[1] > 1.5 * (starts[1] - starts[0])


def test_start_does_not_wait_for_the_next_restart(sprite: Any) -> None:
    sprite.create_service("s", "sh", ["-c", "test -e go && exec sleep 1000; exit 1"], duration=3.5)
    serving.run(sprite, "touch go")
    assert "started" in kinds(start_service(sprite, "s", duration=0.1))
    assert state(sprite, "s").status == "running"


@proves("services: a missing program is started, and exits", PYTHON)
def test_a_missing_program_is_started_and_ends(sprite: Any) -> None:
    events = list(sprite.create_service("s", "/no/such/program", duration=0.1))
    assert [event.type for event in events] == ["started", "stderr", "exit", "complete"]
    assert events[2].exit_code == 127 and "/no/such/program" in events[1].data
    assert "/no/such/program" in serving.run(sprite, "cat /.sprite/logs/services/s.log")
    assert state(sprite, "s").status == "failed"


@proves("services: signal, 400 for a bad one", PYTHON)
def test_signals_reach_the_process(sprite: Any) -> None:
    script = "trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"
    sprite.create_service("s", "sh", ["-c", script], duration=0.5)
    for name in ("HUP", "SIGHUP"):
        signal_service(sprite, "s", name)
    until(lambda: "hup" in serving.run(sprite, "cat /.sprite/logs/services/s.log"))
    assert state(sprite, "s").restart_count == 0
    with pytest.raises(APIError) as refused:
        signal_service(sprite, "s", "NONSENSE")
    assert refused.value.status_code == 400


@proves("services: needs start first; 409 for deleting what is needed", PYTHON)
@proves("services: delete", PYTHON)
def test_needs_start_first_and_are_kept(sprite: Any) -> None:
    with pytest.raises(APIError) as refused:
        sprite.create_service("app", "true", needs=["db"])
    assert refused.value.status_code == 400
    # The database is up when it listens, which takes a while.
    listen = "sleep 1; exec python3 -m http.server 5000"
    sprite.create_service("db", "sh", ["-c", listen], http_port=5000, duration=0.1)
    events = list(
        sprite.create_service(
            "app",
            "sh",
            ["-c", "curl -sf -o /dev/null localhost:5000; echo $?; sleep 1000"],
            needs=["db"],
            duration=0.5,
        )
    )
    assert [event.data for event in events if event.type == "stdout"] == ["0\n"]
    with pytest.raises(Exception, match=r"409|conflict"):
        sprite.delete_service("db")
    with pytest.raises(APIError) as refused:
        sprite.create_service("db", "true", needs=["app"])
    assert refused.value.status_code == 400
    sprite.delete_service("app")
    sprite.delete_service("db")
    assert list_services(sprite) == []


def test_start_starts_what_is_needed(sprite: Any) -> None:
    sprite.create_service("low", "sleep", ["1000"], duration=0.1)
    sprite.create_service("high", "sleep", ["1000"], needs=["low"], duration=0.1)
    stop_service(sprite, "high")
    stop_service(sprite, "low")
    start_service(sprite, "high", duration=0.1)
    assert [service.state.status for service in list_services(sprite)] == ["running", "running"]


@proves("services: one http_port, else 409", PYTHON)
def test_one_service_has_the_http_port(sprite: Any) -> None:
    sprite.create_service("web", "python3", ["-m", "http.server", "8000"], http_port=8000, duration=0.1)
    with pytest.raises(APIError) as refused:
        sprite.create_service("other", "sleep", ["1"], http_port=8001)
    assert refused.value.status_code == 409
    assert "another service already has an HTTP port configured" in refused.value.response
    sprite.create_service("web", "python3", ["-m", "http.server", "8001"], http_port=8001, duration=0.1)
    until(lambda: state(sprite, "web").status == "running")
    assert serving.run(sprite, "curl -s -o /dev/null -w '%{http_code}' localhost:8001") == "200"


@proves("services: update", PYTHON)
def test_a_changed_definition_restarts_and_the_same_does_not(sprite: Any) -> None:
    sprite.create_service("s", "sleep", ["1000"], duration=0.1)
    first = state(sprite, "s").pid
    assert kinds(sprite.create_service("s", "sleep", ["1000"], duration=0.1)) == ["complete"]
    assert state(sprite, "s").pid == first
    assert kinds(sprite.create_service("s", "sleep", ["1001"], duration=0.1)) == [
        "stopping",
        "exit",
        "stopped",
        "started",
        "complete",
    ]
    assert state(sprite, "s").pid != first


@proves("services: delete keeps the log", PYTHON)
def test_delete_keeps_the_log(sprite: Any) -> None:
    sprite.create_service("s", "sh", ["-c", "echo said; exec sleep 1000"], duration=0.3)
    sprite.delete_service("s")
    assert list_services(sprite) == []
    assert "said" in serving.run(sprite, "cat /.sprite/logs/services/s.log; pgrep -x sleep || true")


@proves("services: do not keep a sprite awake", PYTHON)
def test_services_do_not_keep_a_sprite_awake_and_freeze_with_it() -> None:
    with serving.server() as own:
        own.start("--idle", "1")
        sprite = own.client().create_sprite("rests")
        sprite.create_service("s", "sleep", ["1000"], duration=0.1)
        pid = state(sprite, "s").pid
        with own.http() as http:
            until(lambda: http.get("/v1/sprites/rests").json()["status"] == "warm")
        assert state(sprite, "s").pid == pid and state(sprite, "s").restart_count == 0


@proves("services: carried by a checkpoint, back after a restore", PYTHON)
def test_a_checkpoint_carries_definitions_and_a_restore_brings_them_back(sprite: Any) -> None:
    sprite.create_service("kept", "sleep", ["1000"], duration=0.1)
    sprite.create_service("stopped", "sleep", ["1000"], duration=0.1)
    stop_service(sprite, "stopped")
    first = state(sprite, "kept").pid
    serving.finished(sprite.create_checkpoint("with services"))
    start_service(sprite, "stopped", duration=0.1)
    sprite.delete_service("kept")
    sprite.create_service("later", "sleep", ["1000"], duration=0.1)
    serving.finished(sprite.restore_checkpoint("v1"))
    assert [service.name for service in list_services(sprite)] == ["kept", "stopped"]
    back = until(lambda: (found := state(sprite, "kept")).status == "running" and found)
    assert back.restart_count == 0
    assert serving.run(sprite, f"tr '\\0' ' ' </proc/{back.pid}/cmdline; pgrep -xc sleep") == "sleep 1000 1"
    assert state(sprite, "stopped").status == "stopped"
    assert first is not None


def test_a_fork_starts_with_the_services(
    sprite: Any, server: serving.Server, new_name: Callable[[], str]
) -> None:
    sprite.create_service("s", "sleep", ["1000"], duration=0.1)
    name = new_name()
    with server.http() as http:
        assert http.post(f"/v1/sprites/{sprite.name}/fork", json={"name": name}).status_code == 201
    fork = server.client().get_sprite(name)
    try:
        assert until(lambda: (found := state(fork, "s")).status == "running" and found).pid
    finally:
        fork.delete()


@proves("services: logs rotated by size", PYTHON)
def test_logs_are_rotated_by_size(sprite: Any) -> None:
    script = (
        "yes 'a line of some length that fills the log of this service' | head -c 20000000; exec sleep 1000"
    )
    sprite.create_service("loud", "sh", ["-c", script], duration=0.1)
    path = "/.sprite/logs/services"
    until(lambda: "a line" in serving.run(sprite, f"cat {path}/loud.log.1 2>/dev/null | head -1"), timeout=60)
    time.sleep(1)
    sizes = [
        int(word) for word in serving.run(sprite, f"stat -c %s {path}/loud.log {path}/loud.log.1").split()
    ]
    assert all(0 < size <= 8 << 20 for size in sizes)
    assert serving.run(sprite, f"ls {path}") == "loud.log\nloud.log.1"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "cmd"),
        ({"cmd": ""}, "cmd"),
        ({"cmd": 1}, "cmd"),
        ({"cmd": "x\0y"}, "cmd"),
        ({"cmd": "true", "args": "-a"}, "args"),
        ({"cmd": "true", "args": [1]}, "args"),
        ({"cmd": "true", "env": ["A=1"]}, "env"),
        ({"cmd": "true", "env": {"A=B": "1"}}, "env"),
        ({"cmd": "true", "dir": "relative"}, "dir"),
        ({"cmd": "true", "needs": ["s"]}, "itself"),
        ({"cmd": "true", "needs": ["../x"]}, "name"),
        ({"cmd": "true", "http_port": 0}, "http_port"),
        ({"cmd": "true", "http_port": "80"}, "http_port"),
        ({"cmd": "true", "http_port": True}, "http_port"),
        ([], "object"),
    ],
)
@proves("services: a wrong definition is 400 and changes nothing", PLAIN)
def test_what_is_wrong_is_said_and_changes_nothing(
    server: serving.Server, sprite: Any, body: Any, word: str
) -> None:
    with server.http() as http:
        answer = http.put(f"/v1/sprites/{sprite.name}/services/s", json=body)
        assert answer.status_code == 400 and word in answer.json()["error"] and answer.json()["hint"]
        assert http.get(f"/v1/sprites/{sprite.name}/services").json() == []


def test_bad_names_and_durations(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        base = f"/v1/sprites/{sprite.name}/services"
        for name in ("%20", "-x", "a" * 64, "%C3%A4", "..%2e"):
            assert http.put(f"{base}/{name}", json={"cmd": "true"}).status_code in (400, 404)
        for duration in ("x", "-1s", "9999h", "1e3"):
            assert http.put(f"{base}/s?duration={duration}", json={"cmd": "true"}).status_code == 400
        assert http.get(base).json() == []


@proves("services: create (PUT) streams what happens, and complete", JAVASCRIPT)
@proves("services: list", JAVASCRIPT)
@proves("services: get, with its state", JAVASCRIPT)
@proves("services: restart", JAVASCRIPT)
@proves("services: logs", JAVASCRIPT)
@proves("services: signal, 400 for a bad one", JAVASCRIPT)
@proves("services: stop, 409 if it is not running", JAVASCRIPT)
@proves("services: start", JAVASCRIPT)
@proves("services: needs start first; 409 for deleting what is needed", JAVASCRIPT)
@proves("services: delete", JAVASCRIPT)
@proves("services: one that is missing is 404", JAVASCRIPT)
def test_the_javascript_client(server: serving.Server, sprite: Any) -> None:
    script = """
        const ticker = "trap true HUP; echo out; echo err >&2; while :; do sleep 0.1; done";
        say((await all(await sprite.createService("s", { cmd: "sh", args: ["-c", ticker], env: { A: "1" },
            dir: "/tmp", needs: [], httpPort: undefined }, "500ms"))).map((e) => [e.type, e.data ?? null]));
        say(await sprite.listServices());
        say(await sprite.getService("s"));
        say((await all(await sprite.restartService("s", "300ms"))).map((e) => e.type));
        say((await all(await sprite.getServiceLogs("s", { lines: 2 }))).map((e) => [e.type, e.data ?? null]));
        await sprite.signalService("s", "HUP");
        say((await all(await sprite.stopService("s", "5s"))).map((e) => e.type));
        say(await fails(sprite.stopService("s")));
        say(await fails(sprite.signalService("s", "HUP")));
        say((await all(await sprite.startService("s", "100ms"))).map((e) => e.type));
        say(await fails(sprite.signalService("s", "WHAT")));
        await sprite.createService("t", { cmd: "sleep", args: ["1000"], needs: ["s"] }, "0s");
        say(await fails(sprite.deleteService("s")));
        await sprite.deleteService("t");
        await sprite.deleteService("s");
        say(await fails(sprite.getService("s")));
        say(await sprite.listServices());
    """
    (created, listed, got, restarted, logs, stopped, again, unsignalled, started, bad, needed, gone, left) = (
        nodejs.run(server, sprite, script)
    )
    assert created[0] == ["started", None] and created[-1] == ["complete", None]
    assert sorted(created[1:-1]) == [["stderr", "err\n"], ["stdout", "out\n"]]
    assert [service["name"] for service in listed] == ["s"] and listed[0] == got
    assert got["args"][0] == "-c" and got["env"] == {"A": "1"} and got["dir"] == "/tmp"
    assert got["state"]["status"] == "running" and got["state"]["restartCount"] == 0
    assert restarted[:4] == ["stopping", "exit", "stopped", "started"] and restarted[-1] == "complete"
    assert logs[-1] == ["complete", None] and sorted(logs[:2]) == [["stderr", "err\n"], ["stdout", "out\n"]]
    assert stopped[0] == "stopping" and stopped[-2:] == ["stopped", "complete"]
    assert again.startswith("Service not running") and unsignalled.startswith("Service not running")
    assert started[0] == "started" and bad.startswith("Invalid signal")
    assert needed.startswith("Service conflict") and gone.startswith("Service not found") and left == []


@proves("services: logs go on for duration", PLAIN)
def test_logs_go_on_with_what_comes(server: serving.Server, sprite: Any) -> None:
    sprite.create_service(
        "s", "sh", ["-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"], duration=0.5
    )
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}/services/s/logs"
        answer = http.get(path, params={"lines": 3, "duration": "1s"})
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson"
        events = [httpx.Response(200, content=line).json() for line in answer.text.splitlines()]
        numbers = [int(event["data"]) for event in events[:-1]]
        assert events[-1]["type"] == "complete" and len(numbers) > 5
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # none twice, none missing
        assert len(http.get(path, params={"lines": 3}).text.splitlines()) == 4
        assert http.get(path, params={"lines": "x"}).status_code == 400


def cold_start(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        assert http.post(f"/v1/sprites/{sprite.name}/stop").status_code == 200
        assert http.get(f"/v1/sprites/{sprite.name}").json()["status"] == "cold"
