"""Checkpoints, row by row of the API's reference, by the clients that are published."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sprites.exceptions import APIError, NotFoundError

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves


@pytest.fixture(scope="module")
def http(server: serving.Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


def path(sprite: Any, rest: str = "") -> str:
    return f"/v1/sprites/{sprite.name}/checkpoints{rest}"


@proves("checkpoints: create streams info, the ID, and complete", PYTHON)
def test_create_python(sprite: Any) -> None:
    """The id is in two texts, where clients look for it."""
    messages = list(sprite.create_checkpoint("one"))
    assert {message.type for message in messages[:-1]} == {"info"} and messages[-1].type == "complete"
    said = "\n".join(str(message.data) for message in messages)
    assert re.findall(r"ID:\s*(\S+)", said) == re.findall(r"Checkpoint (\S+) created", said) == ["v1"]
    found = sprite.get_checkpoint("v1")
    assert (found.id, found.comment) == ("v1", "one") and found.create_time.tzinfo is not None


@proves("checkpoints: create streams info, the ID, and complete", JAVASCRIPT)
@proves("checkpoints: list, get, 404 for none", JAVASCRIPT)
def test_create_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        for (const comment of ["one", undefined]) {
            const messages = await all(await sprite.createCheckpoint(comment));
            say([messages.at(-1).type, messages.at(-1).data.match(/Checkpoint (\\S+) created/)[1]]);
        }
        const listed = await sprite.listCheckpoints();
        say(listed.map(each => [each.id, each.comment ?? ""]));
        const found = await sprite.getCheckpoint("v1");
        say([found.id, found.comment, found.createTime instanceof Date && !isNaN(found.createTime)]);
        say(await fails(sprite.getCheckpoint("v9")));
    """
    first, second, listed, found, missing = nodejs.run(server, sprite, script)
    assert (first, second) == (["complete", "v1"], ["complete", "v2"])
    assert listed == [["Current", ""], ["v1", "one"], ["v2", ""]]
    assert found == ["v1", "one", True] and "v9" in missing


@proves("checkpoints: list, get, 404 for none", PYTHON)
def test_list_python(sprite: Any) -> None:
    assert [each.id for each in sprite.list_checkpoints()] == ["Current"]
    serving.finished(sprite.create_checkpoint("one"))
    serving.finished(sprite.create_checkpoint())
    assert [(each.id, each.comment or "") for each in sprite.list_checkpoints()[1:]] == [
        ("v1", "one"),
        ("v2", ""),
    ]
    assert sprite.get_checkpoint("v2").id == "v2"
    with pytest.raises((APIError, NotFoundError)) as missing:
        sprite.get_checkpoint("v9")
    assert getattr(missing.value, "status_code", 404) == 404


@proves("checkpoints: list is an array, Current first", PLAIN)
@proves("checkpoints: automatic ones are listed with includeAuto only, and take no number", PLAIN)
def test_list(http: httpx.Client, sprite: Any) -> None:
    for _ in range(2):
        serving.finished(sprite.create_checkpoint())
    serving.finished(sprite.restore_checkpoint("v1"))
    serving.finished(sprite.create_checkpoint())
    assert [each["id"] for each in http.get(path(sprite)).json()] == ["Current", "v1", "v2", "v3"]
    every = http.get(path(sprite), params={"includeAuto": "true"}).json()
    automatic = [each for each in every if each["is_auto"]]
    assert len(automatic) == 1 and re.fullmatch(r"auto-\d+", automatic[0]["id"])
    live = http.get(path(sprite, "/Current")).json()
    assert live == every[0] and live["history"][:2] == ["v3", "v1"]


@proves("checkpoints: list with history, as JSON", PYTHON)
def test_history_python(sprite: Any) -> None:
    for _ in range(2):
        serving.finished(sprite.create_checkpoint())
    serving.finished(sprite.restore_checkpoint("v1"))
    serving.finished(sprite.create_checkpoint())
    assert [each.id for each in sprite.list_checkpoints("v1")] == ["Current", "v1", "v2", "v3"]
    assert [each.id for each in sprite.list_checkpoints("v2")] == ["v2"]
    assert sprite.list_checkpoints("v9") == []


@proves("checkpoints: list with history, as JSON", JAVASCRIPT)
def test_history_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        for (const name of ["create", "create", "restore", "create"])
            await all(name === "create" ? await sprite.createCheckpoint() : await sprite.restoreCheckpoint("v1"));
        say((await sprite.listCheckpoints("v2")).map(each => each.id));
        say((await sprite.listCheckpoints("v1")).map(each => [each.id, each.history]));
    """
    two, one = nodejs.run(server, sprite, script)
    assert two == ["v2"]
    assert [each[0] for each in one] == ["Current", "v1", "v2", "v3"] and one[2][1] == ["v1"]


CHANGE = "echo new > file; mkdir more; rm -r gone; sudo touch /etc/new; sudo rm /etc/motd"
STATE = "cat file; ls -d more gone /etc/new 2>/dev/null"


@proves("checkpoints: restore puts every file back and ends what runs; the id stays", PYTHON)
def test_restore_python(server: serving.Server, http: httpx.Client, sprite: Any) -> None:
    serving.run(sprite, "echo old > file; mkdir gone; sudo touch /etc/motd")
    before = http.get(f"/v1/sprites/{sprite.name}").json()["id"]
    serving.finished(sprite.create_checkpoint("before"))
    serving.run(sprite, f"{CHANGE}; nohup sleep 4321 >/dev/null 2>&1 &")
    messages = list(sprite.restore_checkpoint("v1"))
    assert messages[-1].type == "complete" and {message.type for message in messages[:-1]} <= {"info"}
    assert serving.run(sprite, f"{STATE}; ls /etc/motd; pgrep -f 'sleep 432[1]'", check=False).split() == [
        "old",
        "gone",
        "/etc/motd",
    ]
    assert http.get(f"/v1/sprites/{sprite.name}").json()["id"] == before
    # The files of the API are those of the sprite.
    read = http.get(f"/v1/sprites/{sprite.name}/fs/read?path=/home/sprite/file")
    assert (read.status_code, read.content) == (200, b"old\n")


@proves("checkpoints: restore puts every file back and ends what runs; the id stays", JAVASCRIPT)
@proves("checkpoints: a failed restore is 200 and an error line", JAVASCRIPT)
def test_restore_javascript(server: serving.Server, sprite: Any) -> None:
    script = """
        const run = async (script) => (await sprite.exec("true"), (await sprite.execFile("sh", ["-c", script])).stdout);
        await run("echo old > file; mkdir gone");
        await all(await sprite.createCheckpoint("before"));
        await run("echo new > file; mkdir more; rmdir gone");
        const messages = await all(await sprite.restoreCheckpoint("v1"));
        say([messages.at(-1).type, messages.slice(0, -1).every(each => each.type === "info")]);
        say(await run("cat file; ls"));
        const failed = await all(await sprite.restoreCheckpoint("v9"));
        say([failed.length, failed[0].type, failed[0].error]);
    """
    done, files, (count, kind, error) = nodejs.run(server, sprite, script)
    assert (done, files) == (["complete", True], "old\nfile\ngone\n")
    assert (count, kind) == (1, "error") and error.startswith("Failed to restore checkpoint: ")


@proves("checkpoints: a failed restore is 200 and an error line", PYTHON)
def test_failed_restore_python(sprite: Any) -> None:
    serving.run(sprite, "echo kept > file")
    for name in ("v9", "Current"):
        [message] = list(sprite.restore_checkpoint(name))
        assert message.type == "error" and str(message.error).startswith("Failed to restore checkpoint: ")
    assert serving.run(sprite, "cat file") == "kept"


@proves("checkpoints: other sprites' are not found", PLAIN)
def test_other_sprites(
    http: httpx.Client, server: serving.Server, sprite: Any, new_name: Callable[[], str]
) -> None:
    other = server.client().create_sprite(new_name())
    try:
        serving.finished(sprite.create_checkpoint())
        for _ in range(2):
            serving.finished(other.create_checkpoint())
        assert http.get(path(sprite, "/v2")).status_code == 404
        assert json.loads(http.post(path(sprite, "/v2/restore")).text)["type"] == "error"
        assert http.delete(path(sprite, "/v2")).status_code == 404
    finally:
        other.delete()


@proves("checkpoints: delete is 204; the current one is refused", PLAIN)
def test_delete(http: httpx.Client, sprite: Any) -> None:
    for _ in range(2):
        serving.finished(sprite.create_checkpoint())
    assert http.delete(path(sprite, "/v2")).status_code == 409
    answer = http.delete(path(sprite, "/v1"))
    assert (answer.status_code, answer.content) == (204, b"")
    assert http.delete(path(sprite, "/v1")).status_code == 404
    serving.finished(sprite.create_checkpoint())
    # Its number is not used again.
    assert [each["id"] for each in http.get(path(sprite)).json()] == ["Current", "v2", "v3"]


@proves("checkpoints: created while a writer writes, without stopping it", PLAIN)
def test_a_writer_goes_on(sprite: Any) -> None:
    serving.run(sprite, "nohup sh -c 'while :; do date +%s%N >> log; sleep 0.01; done' >/dev/null 2>&1 &")
    pid = serving.run(sprite, "pgrep -f 'while :' | head -1")
    serving.finished(sprite.create_checkpoint())
    lines = int(serving.run(sprite, "wc -l < log"))
    serving.until(lambda: int(serving.run(sprite, "wc -l < log")) > lines)
    assert serving.run(sprite, "pgrep -f 'while :' | head -1") == pid
