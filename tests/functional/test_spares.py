"""Spares: a create that takes one is like any other, and nobody sees those that wait."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import holdings
import serving
from serving import until

LOOK = """
echo "$(hostname)|$(cat /etc/hostname)|$(cat /etc/machine-id)|$(uname -n)"
grep -v localhost /etc/hosts
"""


@pytest.fixture(scope="module")
def own() -> Iterator[serving.Server]:
    """A server whose pool, cgroups and processes are looked at."""
    with serving.server() as found:
        found.start()
        yield found


def spare(server: serving.Server) -> str:
    """The id of the server's one spare, when it is there."""
    [found] = until(lambda: holdings.spares(server), what="a spare")
    return str(found)


def created(server: serving.Server, name: str, **options: Any) -> Any:
    """A sprite that was a spare, and has not run."""
    waiting = spare(server)
    sprite = server.client().create_sprite(name, **options)
    assert identity(server, name) == waiting
    return sprite


def identity(server: serving.Server, name: str) -> str:
    with server.http() as http:
        return str(http.get(f"/v1/sprites/{name}").json()["id"])


def post(server: serving.Server, path: str, body: Any = None) -> Any:
    with server.http() as http:
        answer = http.post(f"/v1/sprites{path}", json=body)
        answer.raise_for_status()
        return answer


def described(sprite: Any, name: str) -> str:
    """The machine id of a sprite that has its own name everywhere."""
    first, *hosts = serving.run(sprite, LOOK).splitlines()
    hostname, file, machine, node = first.split("|")
    assert {hostname, file, node} == {name}
    assert hosts == [f"10.0.0.1 {name}", f"fdf::1 {name}"]
    assert re.fullmatch("[0-9a-f]{32}", machine)
    return machine


def test_it_has_a_name_of_its_own_and_keeps_its_identity(own: serving.Server) -> None:
    machines = []
    for name in ("one", "other"):
        sprite = created(own, name)
        machines.append(described(sprite, name))
        assert identity(own, name) in (serving.run_directory(own, name) / "spec.json").read_text()
        post(own, f"/{name}/stop")
        assert described(sprite, name) == machines[-1]
        # What its user changes is theirs.
        serving.run(sprite, "echo changed | sudo tee /etc/hostname")
        post(own, f"/{name}/stop")
        assert serving.run(sprite, "cat /etc/hostname /etc/machine-id") == f"changed\n{machines[-1]}"
        sprite.delete()
    assert machines[0] != machines[1]


def test_it_knows_itself_and_its_files_are_its_users(own: serving.Server) -> None:
    sprite = created(own, "knows")
    assert serving.run(sprite, 'sprite-env info | grep -c \'"name": *"knows"\'') == "1"
    assert (
        serving.run(sprite, "stat -c '%u:%g %a' /etc/hostname /etc/hosts /etc/machine-id | sort -u")
        == "0:0 644"
    )
    assert serving.run(sprite, "getent hosts knows | wc -l") == "1"
    assert (
        serving.run(sprite, "sudo sh -c 'echo 10.0.0.9 more >> /etc/hosts' && getent hosts more")
        == "10.0.0.9        more"
    )
    (sprite.filesystem("/home/sprite") / "file").write_text("data")
    assert serving.run(sprite, "cat file && ls /.sprite/checkpoints") == "data"
    serving.finished(sprite.create_checkpoint("one"))
    assert serving.run(sprite, "cat /.sprite/checkpoints/v1/home/sprite/file") == "data"
    sprite.delete()


def test_it_has_the_environment_that_was_asked_for(own: serving.Server) -> None:
    waiting = spare(own)
    post(own, "", {"name": "told", "environment": {"GREETING": "hello"}, "labels": ["red"]})
    assert identity(own, "told") == waiting
    sprite = own.client().get_sprite("told")
    assert serving.run(sprite, "echo $GREETING") == "hello"
    with own.http() as http:
        assert http.get("/v1/sprites/told").json()["labels"] == ["red"]
    sprite.delete()


@pytest.mark.parametrize(
    "config",
    [{"ram_mb": 512}, {"cpus": 1}, {"storage_gb": 3}, {"pids": 100}],
    ids=lambda each: next(iter(each)),
)
def test_who_wants_something_else_gets_that(own: serving.Server, config: dict[str, int]) -> None:
    waiting = spare(own)
    post(own, "", {"name": "else", "config": config})
    assert identity(own, "else") != waiting
    assert spare(own) == waiting
    sprite = own.client().get_sprite("else")
    described(sprite, "else")
    if "storage_gb" in config:
        assert int(serving.run(sprite, "df --output=size / | tail -1")) < 3 << 20
    sprite.delete()


def test_a_policy_before_the_first_wake_is_in_force_at_it(own: serving.Server) -> None:
    sprite = created(own, "bound")
    with own.http() as http:
        rules = {"rules": [{"domain": "*", "action": "deny"}]}
        http.post("/v1/sprites/bound/policy/network", json=rules).raise_for_status()
    described(sprite, "bound")
    assert "deny" in serving.run(sprite, "cat /.sprite/policy/network.json")
    assert serving.run(sprite, "getent hosts example.com || echo refused") == "refused"
    sprite.delete()


def test_nobody_sees_it(own: serving.Server) -> None:
    waiting = spare(own)
    with own.http() as http:
        listed = http.get("/v1/sprites").json()
        assert listed["sprites"] == []
        assert waiting not in http.get("/v1/pool").text
        assert waiting not in http.get("/v1/sprites").text
        for wrong in (waiting, "", "spare"):
            assert http.post(f"/v1/sprites/{wrong}/exec?cmd=true").status_code in (404, 405)
    sprite = created(own, "counted")
    with own.http() as http:
        assert http.get("/v1/sprites/counted").json()["status"] == "cold"
    sprite.delete()


def test_limits_are_for_sprites(own: serving.Server) -> None:
    with serving.server() as server:
        server.start("--max-running", "1", "--create-rate", "2")
        for name in ("a", "b"):
            sprite = created(server, name)
            spare(server)
            described(sprite, name)
            post(server, f"/{name}/stop")


def test_a_name_that_is_taken_costs_no_spare(own: serving.Server) -> None:
    sprite = created(own, "taken")
    waiting = spare(own)
    with own.http() as http:
        assert http.post("/v1/sprites", json={"name": "taken"}).status_code == 409
    assert spare(own) == waiting
    sprite.delete()


def test_a_checkpoint_and_a_fork_before_the_first_wake(own: serving.Server) -> None:
    sprite = created(own, "fresh")
    serving.finished(sprite.create_checkpoint("nothing yet"))
    post(own, "/fresh/fork", {"name": "branch"})
    machines = {described(own.client().get_sprite(name), name) for name in ("branch", "fresh")}
    assert len(machines) == 2
    serving.run(sprite, "echo data > file")
    serving.finished(sprite.restore_checkpoint("v1"))
    assert serving.run(sprite, "ls") == ""
    described(sprite, "fresh")
    own.client().get_sprite("branch").delete()
    sprite.delete()


def test_a_restore_before_the_first_wake(own: serving.Server) -> None:
    sprite = created(own, "back")
    serving.finished(sprite.create_checkpoint("nothing yet"))
    serving.finished(sprite.restore_checkpoint("v1"))
    described(sprite, "back")
    sprite.delete()


@pytest.mark.parametrize("end", ["delete", "stop", "restart"])
def test_the_end_before_the_first_wake(own: serving.Server, end: str) -> None:
    before = holdings.held(own)
    sprite = created(own, "early")
    if end == "stop":
        post(own, "/early/stop")
        assert not serving.run_directory(own, "early").exists()
        described(sprite, "early")
    elif end == "restart":
        post(own, "/early/restart")
        described(sprite, "early")
    sprite.delete()
    holdings.require_no_more(own, before)


def test_one_that_is_not_used_holds_nothing_after_a_while() -> None:
    with serving.server() as server:
        server.start("--idle", "1")
        sprite = created(server, "unused")
        place = serving.run_directory(server, "unused")
        until(lambda: not place.exists(), what="its box to go")
        described(sprite, "unused")


def test_a_spare_that_died_is_no_harm(own: serving.Server) -> None:
    sprite = created(own, "fallen")
    [init] = [
        pid
        for pid in holdings.processes(own)
        if holdings.comm(pid) == "tini" and holdings.within(identity(own, "fallen"), pid)
    ]
    os.kill(init, signal.SIGKILL)
    described(sprite, "fallen")
    sprite.delete()


def test_many_at_once(own: serving.Server) -> None:
    waiting = spare(own)
    with ThreadPoolExecutor(8) as threads:
        sprites = list(threads.map(lambda n: own.client().create_sprite(f"many{n}"), range(8)))
        machines = set(threads.map(lambda n: described(sprites[n], f"many{n}"), range(8)))
    assert len(machines) == 8
    assert waiting in {identity(own, f"many{n}") for n in range(8)}
    for sprite in sprites:
        sprite.delete()


@pytest.mark.parametrize("first", ["kill", "stop"])
def test_the_next_server(own: serving.Server, first: str) -> None:
    """A sprite that was created and not woken is there, and the spare is another one."""
    before = holdings.held(own)
    sprite = created(own, "survives")
    waiting = spare(own)
    own.kill() if first == "kill" else own.stop()
    own.start()
    assert waiting not in own.log.read_text()
    described(sprite, "survives")
    sprite.delete()
    assert spare(own) != waiting
    holdings.require_no_more(own, before)
    assert [path for path in holdings.pool(own.data) if path.startswith("disks/")] == [f"disks/{spare(own)}"]


def test_without_any() -> None:
    with serving.server() as server:
        server.start("--spares", "0")
        sprite = server.client().create_sprite("plain")
        described(sprite, "plain")
        assert holdings.spares(server) == []


def test_down_takes_it_along() -> None:
    with serving.server() as server:  # which requires that nothing is left
        server.start()
        spare(server)
        server.kill()
        server.down()
        server.start()
        spare(server)
        server.down()
        assert holdings.pool(server.data) == []  # not mounted any more
        server.start()
        waiting = spare(server)
        assert [path for path in holdings.pool(server.data) if path.startswith("disks/")] == [
            f"disks/{waiting}"
        ]


def test_its_image_may_be_removed() -> None:
    with serving.server() as server:
        server.start()
        spare(server)
        done = server.cli("image", "rm", "sprites", "--data", str(server.data))
        assert done.returncode == 0, done.stderr
        until(lambda: not holdings.spares(server), what="the spare to go")
        assert not list((server.data / "images" / "layers").glob("*.erofs"))
