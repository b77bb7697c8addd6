"""What a sprite finds inside: sprite-env, its API socket, tasks, checkpoints as directories."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import serving
from proof import PLAIN, proves
from serving import run, until


def ended(sprite: Any, script: str) -> tuple[int, str, str]:
    done = sprite.run("sh", "-c", script, capture_output=True)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


@proves("inside: sprite-env info, in every shell and by curl", PLAIN)
def test_sprite_env_is_a_command_of_everybody(sprite: Any) -> None:
    for shell in ("sh -c", "bash -lc", "zsh -c", "sudo sh -c"):
        assert json.loads(run(sprite, f"{shell} 'sprite-env info'"))["name"] == sprite.name
    by_curl = "curl -s --unix-socket /.sprite/api.sock http://sprite/v1/info"
    assert run(sprite, by_curl) == run(sprite, "sprite-env curl -s /v1/info")
    assert json.loads(run(sprite, by_curl))["name"] == sprite.name


@proves("inside: the user sprite with sudo, its home, tini as the first process", PLAIN)
def test_who_one_is(sprite: Any) -> None:
    assert (
        run(sprite, "id -un; id -u; pwd; echo $HOME; sudo id -u")
        == "sprite\n1001\n/home/sprite\n/home/sprite\n0"
    )
    assert (
        run(sprite, "cat /proc/1/comm; hostname; command -v sprite-env")
        == f"tini\n{sprite.name}\n/.sprite/bin/sprite-env"
    )


@proves("inside: sprite-env services", PLAIN)
def test_services_from_inside(sprite: Any) -> None:
    create = 'sprite-env services create web --cmd python3 --args "-m,http.server,3000" --http-port 3000'
    created = lines(run(sprite, f"{create} --env A=1,2,B=3 --dir /tmp --duration 300ms"))
    assert created[0]["type"] == "started" and created[-1]["type"] == "complete"
    until(lambda: sprite.list_services()[0].state.status == "running")  # outside it is the same
    [listed] = json.loads(run(sprite, "sprite-env services list"))
    assert listed == json.loads(run(sprite, "sprite-env services get web"))
    assert listed["args"] == ["-m", "http.server", "3000"] and listed["http_port"] == 3000
    assert listed["env"] == {"A": "1,2", "B": "3"} and listed["dir"] == "/tmp"
    run(sprite, "curl -sf -o /dev/null --retry 20 --retry-connrefused --retry-delay 1 localhost:3000")
    assert "GET /" in run(sprite, "sprite-env services logs web --lines 5")
    kinds = [e["type"] for e in lines(run(sprite, "sprite-env services restart web --no-stream"))]
    assert kinds == ["stopping", "exit", "stopped", "started", "complete"]
    run(sprite, "sprite-env services signal web TERM")
    until(lambda: sprite.list_services()[0].state.restart_count == 1)
    run(sprite, "sprite-env services stop web")
    assert sprite.list_services()[0].state.status == "stopped"
    run(sprite, "sprite-env services start web --no-stream && sprite-env services delete web")
    assert sprite.list_services() == []


@proves("inside: sprite-env checkpoints", PLAIN)
def test_checkpoints_from_inside(sprite: Any) -> None:
    run(sprite, "echo before > file; sync")
    created = lines(run(sprite, 'sprite-env checkpoints create --comment "from inside"'))
    assert created[-1]["data"] == "Checkpoint v1 created successfully"
    assert json.loads(run(sprite, "sprite-env checkpoints get v1"))["comment"] == "from inside"
    ids = [each["id"] for each in json.loads(run(sprite, "sprite-env checkpoints list"))]
    assert ids == ["Current", "v1"]
    run(sprite, "echo after > file")
    sprite.run("sprite-env", "checkpoints", "restore", "v1", capture_output=True)
    until(lambda: run(sprite, "cat file", check=False) == "before")


def test_failures_are_exit_codes(sprite: Any) -> None:
    for command, code, word in (
        ("services get nothing", 1, "not found"),
        ("services create web", 2, "--cmd is missing"),
        ("services create web --cmd x --http-port many", 2, "not a number"),
        ("services create web --cmd x --needs nothing", 1, "does not exist"),
        ("services stop", 2, "NAME is missing"),
        ("services get a b", 2, "does not belong"),
        ("services get a/b", 2, "does not belong"),
        ("services list --all", 2, "no option"),
        ("checkpoints restore v99", 1, "v99"),
        ("checkpoints create --comment", 2, "no value"),
        ("checkpoints mount v99", 1, "none of the last"),
        ("tasks create x --expire 2h", 1, "hour"),
        ("nonsense", 2, "no command"),
    ):
        status, out, err = ended(sprite, f"sprite-env {command}")
        assert status == code and word in err + out, (command, status, out, err)


def test_help_is_everywhere(sprite: Any) -> None:
    everything = run(sprite, "sprite-env")
    assert everything == run(sprite, "sprite-env --help") == run(sprite, "sprite-env help")
    names = [line.split()[:2] for line in everything.splitlines() if line.startswith("  services")]
    assert ["services", "create"] in names
    for first, second in names:
        text = run(sprite, f"sprite-env {first} {second} --help")
        assert "usage: " in text and "example: sprite-env" in text
    assert "create" in run(sprite, "sprite-env services --help")


def test_it_works_without_curl_and_without_python(sprite: Any) -> None:
    run(sprite, "sudo chmod 0 /usr/bin/curl")
    assert json.loads(run(sprite, "sprite-env info"))["name"] == sprite.name
    run(sprite, "sudo rm -rf /usr/lib/python3*")
    assert json.loads(run(sprite, "sprite-env info"))["name"] == sprite.name
    assert lines(run(sprite, "sprite-env checkpoints create"))[-1]["type"] == "complete"
    run(sprite, "sudo chmod 0 /usr/bin/perl")
    status, _, err = ended(sprite, "sprite-env info")
    assert status == 1 and "install curl, python3 or perl" in err


@proves("inside: tasks, by every form", PLAIN)
def test_tasks(sprite: Any, server: serving.Server) -> None:
    base = "sprite-env curl -o /dev/null -w '%{http_code}\\n' -X"
    assert run(sprite, f'{base} POST /v1/tasks -d \'{{"name": "build", "expire": "30m"}}\'') == "201"
    assert run(sprite, f'{base} POST /v1/tasks -d \'{{"name": "build", "expire": 60}}\'') == "409"
    for path, body in (("/build", '{"expire": 600}'), ("", '{"name": "other", "expire": "5m"}')):
        assert run(sprite, f"{base} PUT /v1/tasks{path} -d '{body}'") == "200"
    for body in ('{"name": "x", "expire": "61m"}', '{"name": "x", "expire": 0}', '{"name": ""}', "[]", "{"):
        assert run(sprite, f"{base} POST /v1/tasks -d '{body}'") == "400"
    tasks = json.loads(run(sprite, "sprite-env tasks list"))["tasks"]
    assert [task["name"] for task in tasks] == ["build", "other"]
    assert set(tasks[0]) == {"name", "started_at", "expires_at"}
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}"
        until(lambda: any("task build until" in why for why in http.get(path).json()["awake_because"]))
    run(sprite, "sprite-env tasks delete other")
    assert run(sprite, f"{base} DELETE /v1/tasks/build") == "204"
    assert run(sprite, f"{base} DELETE /v1/tasks/build") == "404"
    assert run(sprite, f"{base} GET /v1/tasks/build") == "404"


@proves("inside: a task holds the sprite awake", PLAIN)
def test_a_task_holds_the_sprite_awake_until_it_ends() -> None:
    with serving.server() as own:
        own.start("--idle", "1")
        sprite = own.client().create_sprite("works")
        run(sprite, "sprite-env tasks create build --expire 6s")
        with own.http() as http:
            for _ in range(8):
                assert http.get("/v1/sprites/works").json()["status"] == "running"
                time.sleep(0.4)
            until(lambda: http.get("/v1/sprites/works").json()["status"] == "warm")


@proves("inside: the last five checkpoints, read-only", PLAIN)
def test_checkpoints_can_be_looked_into(server: serving.Server, sprite: Any) -> None:
    run(sprite, "echo one > file; sudo rm /etc/debian_version; sudo touch /etc/new; sync")
    serving.finished(sprite.create_checkpoint())
    run(sprite, "echo two > file; mkdir empty")
    for _ in range(5):
        serving.finished(sprite.create_checkpoint())
    assert "none of the last 5" in ended(sprite, "sprite-env checkpoints mount v1")[2]
    mounted = json.loads(run(sprite, "sprite-env checkpoints mount v2"))
    assert mounted == {"id": "v2", "path": "/.sprite/checkpoints/v2"}
    assert run(sprite, "sprite-env checkpoints mount v2 | jq -r .path") == "/.sprite/checkpoints/v2"
    root = "/.sprite/checkpoints/v2"
    assert run(sprite, f"cat {root}/home/sprite/file; stat -c %U {root}/home/sprite/file") == "two\nsprite"
    assert (
        run(sprite, f"ls {root}/etc/debian_version {root}/etc/new 2>/dev/null || true") == f"{root}/etc/new"
    )
    assert run(sprite, f"diff {root}/etc/passwd /etc/passwd && echo same") == "same"
    assert "Read-only" in ended(sprite, f"sudo touch {root}/etc/x")[2]
    assert run(sprite, f"sudo mount -o remount,rw {root} 2>/dev/null || echo refused") == "refused"
    # It is one mount, and the host sees nothing of it.
    assert run(sprite, f"grep -c ' {root} ' /proc/mounts") == "1"
    run(sprite, "sprite-env checkpoints unmount v2")
    assert run(sprite, "ls /.sprite/checkpoints") == ""
    # A checkpoint that is looked at can be deleted, and the sprite restored and destroyed.
    run(sprite, "sprite-env checkpoints mount v3; sprite-env checkpoints mount v4")
    with server.http() as http:
        assert http.delete(f"/v1/sprites/{sprite.name}/checkpoints/v3").status_code == 204
    assert run(sprite, "cat /.sprite/checkpoints/v3/home/sprite/file") == "two"
    serving.finished(sprite.restore_checkpoint("v4"))
    assert run(sprite, "ls /.sprite/checkpoints; cat file") == "two"
    assert json.loads(run(sprite, "sprite-env checkpoints mount v2"))["id"] == "v2"


@pytest.fixture
def autofs() -> None:
    """Without it, a checkpoint is there only after ``sprite-env checkpoints mount``."""
    if "autofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("needs autofs in this kernel")


@pytest.mark.usefixtures("autofs")
@proves("inside: a checkpoint is mounted at the first look", PLAIN)
def test_a_checkpoint_is_there_when_somebody_looks(sprite: Any, server: serving.Server) -> None:
    run(sprite, "echo one > file; sync")
    serving.finished(sprite.create_checkpoint())
    run(sprite, "echo two > file")
    assert run(sprite, "ls /.sprite/checkpoints") == ""
    assert (
        run(sprite, "diff /.sprite/checkpoints/v1/home/sprite/file file || true") == "1c1\n< one\n---\n> two"
    )
    assert run(sprite, "ls /.sprite/checkpoints") == "v1"
    assert "No such file" in ended(sprite, "ls /.sprite/checkpoints/v2")[2]
    assert "No such file" in ended(sprite, "ls /.sprite/checkpoints/auto")[2]
    run(sprite, "sudo umount /.sprite/checkpoints/v1")  # whatever somebody does inside
    script = "for i in 1 2 3 4 5 6 7 8; do cat /.sprite/checkpoints/v1/home/sprite/file & done; wait"
    assert run(sprite, script) == "\n".join(["one"] * 8)
    run(sprite, "sprite-env checkpoints unmount v1")
    assert (sprite.filesystem("/.sprite/checkpoints/v1/home/sprite") / "file").read_text() == "one\n"
    # The next pilot answers, too.
    os.kill(serving.pilot(server, sprite.name), signal.SIGKILL)
    run(sprite, "true")
    assert run(sprite, "cat /.sprite/checkpoints/v1/home/sprite/file") == "one"
    # And the one after a restore.
    serving.finished(sprite.restore_checkpoint("v1"))
    assert run(sprite, "ls /.sprite/checkpoints; cat /.sprite/checkpoints/v1/home/sprite/file") == "one"


@pytest.mark.slow
@proves("inside: a checkpoint is dropped when unused", PLAIN)
def test_a_checkpoint_is_dropped_when_nobody_looks_at_it(sprite: Any) -> None:
    for _ in range(2):
        serving.finished(sprite.create_checkpoint())
    run(sprite, "sprite-env checkpoints mount v1; sprite-env checkpoints mount v2")
    run(sprite, "(cd /.sprite/checkpoints/v2; exec sleep 1000) >/dev/null 2>&1 &")
    until(lambda: run(sprite, "ls /.sprite/checkpoints") == "v2", timeout=100)


@proves("inside: llm.txt and what it advises", PLAIN)
def test_what_there_is_to_read(sprite: Any) -> None:
    assert json.loads(run(sprite, "cat /.sprite/policy/network.json")) == {"rules": []}
    for path in ("policy/network.json", "llm.txt", "version.txt", "bin/sprite-env"):
        assert ended(sprite, f"sudo sh -c 'echo x >> /.sprite/{path}'")[0] != 0
    text = run(sprite, "cat /.sprite/llm.txt")
    commands = [line.split()[:3] for line in text.splitlines() if line.startswith("  sprite-env ")]
    assert len(commands) > 8
    for command in commands:  # nothing is advised that does not exist
        assert "usage: " in run(sprite, f"{' '.join(command)} --help"), command


@proves("inside: version.txt", PLAIN)
def test_the_version(server: serving.Server, sprite: Any) -> None:
    with server.http() as http:
        assert run(sprite, "cat /.sprite/version.txt") == http.get("/v1/sprites").headers["Sprite-Version"]


@proves("inside: policy/network.json", PLAIN)
def test_the_network_policy_can_be_read_and_not_changed(sprite: Any, server: serving.Server) -> None:
    rules = [{"domain": "*.npmjs.org", "action": "allow"}, {"domain": "*", "action": "deny"}]
    shown = "cat /.sprite/policy/network.json"
    with server.http() as http:
        path = f"/v1/sprites/{sprite.name}/policy/network"
        assert json.loads(run(sprite, shown)) == {"rules": []}
        assert http.post(path, json={"rules": rules}).status_code == 204
        assert json.loads(run(sprite, shown)) == {"rules": rules}
        os.kill(serving.pilot(server, sprite.name), signal.SIGKILL)
        assert json.loads(run(sprite, shown)) == {"rules": rules}
        assert http.post(f"/v1/sprites/{sprite.name}/stop").status_code == 200
        assert json.loads(run(sprite, shown)) == {"rules": rules}
        assert http.post(path, json={"rules": []}).status_code == 204
        assert json.loads(run(sprite, shown)) == {"rules": []}
    assert ended(sprite, "sudo sh -c 'echo > /.sprite/policy/network.json'")[0] != 0


def test_nobody_else_inside_may_use_the_socket(sprite: Any) -> None:
    status, _, err = ended(sprite, "sudo -u nobody sprite-env info")
    assert status == 1 and "may not use" in err
    assert (
        "onnect to server"
        in ended(sprite, "sudo -u nobody curl -sS --unix-socket /.sprite/api.sock http://s/")[2]
    )
    assert run(sprite, "stat -c '%a %U %G' /.sprite/api.sock") == "660 root sprite"


@pytest.mark.parametrize(
    "path", ["/exec?cmd=id", "/fs/read?path=/", "/pilot/status", "/v1/sprites", "/services", "/proxy"]
)
@proves("inside: an allow-list", PLAIN)
def test_the_servers_routes_are_not_inside(sprite: Any, path: str) -> None:
    script = f"curl -s -o /dev/null -w '%{{http_code}}' --unix-socket /.sprite/api.sock 'http://sprite{path}'"
    assert run(sprite, script) == "404"


@proves("inside: 503 with a hint while the server is down, the rest goes on", PLAIN)
def test_while_the_server_is_down() -> None:
    with serving.server() as own:
        own.start()
        sprite = own.client().create_sprite("alone")
        own_words = "while sprite-env checkpoints list >/dev/null 2>&1; do sleep 0.2; done; "
        own_words += "sprite-env checkpoints list 2> ~/refused; sprite-env tasks create alone > ~/task; "
        own_words += (
            "sprite-env services create s --cmd sleep --args 1000 --no-stream > ~/service; touch ~/done"
        )
        run(sprite, f"({own_words}) >/dev/null 2>&1 &")
        own.kill()
        time.sleep(5)
        own.start()
        until(lambda: run(sprite, "test -e done && echo yes || true") == "yes")
        refused = run(sprite, "cat refused")
        assert "does not answer" in refused and "hint: " in refused
        assert json.loads(run(sprite, "cat task"))["name"] == "alone"
        assert sprite.list_services()[0].state.status == "running"
