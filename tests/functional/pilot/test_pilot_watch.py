"""Watching files: what is told, what is told once, and what is said when something is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pilot_client import Pilot
from pilot_inside import Inside
from websockets.asyncio.client import ClientConnection

HOME = "/home/sprite"
QUIET_S = 0.5


class Watcher:
    """A client that watches."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def subscribe(self, *paths: str, **more: Any) -> list[dict[str, Any]]:
        """Subscribe; return what is said up to the confirmation."""
        await self._socket.send(json.dumps({"type": "subscribe", "paths": paths, **more}))
        seen = []
        async with asyncio.timeout(30):
            while not seen or seen[-1]["type"] != "subscribed":
                seen.append(json.loads(await self._socket.recv()))
        return seen

    async def send(self, message: str) -> None:
        await self._socket.send(message)

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(30):
            return dict(json.loads(await self._socket.recv()))

    async def seen(self) -> list[dict[str, Any]]:
        """Everything until nothing more comes."""
        found: list[dict[str, Any]] = []
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    found.append(json.loads(await self._socket.recv()))
            except TimeoutError:
                return found

    async def events(self) -> list[tuple[str, str]]:
        """What happened, as event and path below the home directory."""
        return [(each["event"], each["path"].removeprefix(f"{HOME}/")) for each in await self.seen()]


@asynccontextmanager
async def watcher(pilot: Pilot, *paths: str, **more: Any) -> AsyncIterator[Watcher]:
    async with pilot.connect("/fs/watch") as socket:
        found = Watcher(socket)
        if paths:
            assert await found.subscribe(*paths, **more) == [{"type": "subscribed", "paths": list(paths)}]
        yield found


@pytest.fixture
def inside(pilot: Pilot, http: httpx.Client) -> Iterator[Inside]:
    yield Inside(pilot)
    for entry in http.get("/fs/list", params={"path": HOME, "asRoot": "true"}).json()["entries"]:
        query = {"path": entry["path"], "recursive": "true", "asRoot": "true"}
        http.delete("/fs/delete", params=query)


async def test_what_programs_do_in_a_directory(pilot: Pilot, inside: Inside) -> None:
    home = Path(HOME)

    def change() -> None:
        (home / "a").write_text("hello")
        (home / "a").chmod(0o600)
        (home / "a").rename(home / "b")
        (home / "b").unlink()
        (home / "d").mkdir()
        (home / "d/below").write_text("not told: not recursive")

    async with watcher(pilot, HOME) as watching:
        inside.do(change)
        assert await watching.events() == [
            ("create", "a"),
            ("write", "a"),
            ("chmod", "a"),
            ("rename", "a"),
            ("create", "b"),
            ("remove", "b"),
            ("create", "d"),
        ]


async def test_the_fields_of_an_event(pilot: Pilot, inside: Inside) -> None:
    async with watcher(pilot, HOME) as watching:
        inside.do(lambda: Path(f"{HOME}/a").write_text("12345"))
        event = (await watching.seen())[-1]
        datetime.fromisoformat(event.pop("timestamp"))
        assert event == {
            "type": "event",
            "event": "write",
            "path": f"{HOME}/a",
            "size": 5,
            "isDir": False,
        }
        inside.do(lambda: Path(f"{HOME}/d").mkdir())
        assert (await watching.next())["isDir"] is True


async def test_what_the_file_endpoints_do(pilot: Pilot, http: httpx.Client, inside: Inside) -> None:
    def put(name: str, content: bytes) -> None:
        assert http.put("/fs/write", params={"path": f"{HOME}/{name}"}, content=content).status_code == 200

    put("old", b"1")
    async with watcher(pilot, HOME, recursive=True) as watching:
        put("new", bytes(1 << 20))
        assert await watching.events() == [("create", "new"), ("write", "new")]
        put("old", b"2")
        assert await watching.events() == [("write", "old")]
        http.post("/fs/copy", json={"source": f"{HOME}/old", "dest": f"{HOME}/d", "recursive": True})
        http.post("/fs/rename", json={"source": "/etc/none", "dest": f"{HOME}/e"})
        assert await watching.events() == [("create", "d"), ("write", "d")]
        http.delete("/fs/delete", params={"path": f"{HOME}/old"})
        assert await watching.events() == [("remove", "old")]


async def test_a_tree_with_directories_made_later(pilot: Pilot, inside: Inside) -> None:
    home = Path(HOME)

    def first() -> None:
        (home / "d/e").mkdir(parents=True)
        (home / "d/e/a").write_text("x")

    async with watcher(pilot, HOME, recursive=True) as watching:
        inside.do(first)
        assert set(await watching.events()) >= {("create", "d"), ("create", "d/e"), ("create", "d/e/a")}
        inside.do(lambda: (home / "d/e/a").write_text("y"))
        assert await watching.events() == [("write", "d/e/a")]
        inside.do(lambda: (home / "d").rename(home / "n"))
        assert set(await watching.events()) == {
            ("rename", "d"),
            ("create", "n"),
            ("create", "n/e"),
            ("create", "n/e/a"),
        }
        inside.do(lambda: (home / "n/e/a").write_text("z"))
        assert await watching.events() == [("write", "n/e/a")]
        inside.do(lambda: (home / "n").rename("/tmp/gone"))
        assert await watching.events() == [("rename", "n")]
        inside.do(lambda: Path("/tmp/gone/e/a").write_text("out of sight"))
        assert await watching.events() == []


async def test_a_file_stays_watched_when_it_is_replaced(pilot: Pilot, inside: Inside) -> None:
    file = Path(HOME) / "a"
    inside.do(lambda: file.write_text("1"))
    inside.do(lambda: Path(f"{HOME}/link").symlink_to("a"))
    async with watcher(pilot, str(file), f"{HOME}/link") as watching:

        def replace() -> None:
            (file.parent / "other").write_text("2")
            (file.parent / "other").rename(file)

        inside.do(replace)
        assert set(await watching.events()) == {("create", "a"), ("create", "link")}
        inside.do(lambda: file.write_text("3"))
        assert set(await watching.events()) == {("write", "a"), ("write", "link")}


async def test_the_watched_directory_itself(pilot: Pilot, inside: Inside) -> None:
    inside.do(lambda: Path(f"{HOME}/d").mkdir())
    async with watcher(pilot, f"{HOME}/d") as watching:
        inside.do(lambda: Path(f"{HOME}/d").chmod(0o700))
        inside.do(lambda: Path(f"{HOME}/d").rmdir())
        assert await watching.events() == [("chmod", "d"), ("remove", "d")]


async def test_many_writes_are_told_once(pilot: Pilot, inside: Inside) -> None:
    def write() -> None:
        with Path(f"{HOME}/a").open("wb", buffering=0) as file:
            for _ in range(20_000):
                file.write(b"x")

    async with watcher(pilot, HOME) as watching:
        inside.do(write)
        events = await watching.events()
        assert events[0] == ("create", "a") and events[-1] == ("write", "a") and len(events) < 100


async def test_what_comes_and_goes_is_told_in_its_order(pilot: Pilot, inside: Inside) -> None:
    def flap() -> None:
        for _ in range(3):
            Path(f"{HOME}/a").touch()
            Path(f"{HOME}/a").unlink()
        Path(f"{HOME}/a").touch()

    async with watcher(pilot, HOME) as watching:
        inside.do(flap)
        events = [event for event, _ in await watching.events() if event in ("create", "remove")]
        assert events == ["create", "remove"] * 3 + ["create"]


async def test_unsubscribing(pilot: Pilot, inside: Inside) -> None:
    inside.do(lambda: Path(f"{HOME}/d").mkdir())
    async with watcher(pilot, HOME, f"{HOME}/d") as watching:
        await watching.send(json.dumps({"type": "unsubscribe", "paths": [HOME]}))
        await asyncio.sleep(0.2)
        inside.do(lambda: Path(f"{HOME}/a").touch())
        inside.do(lambda: Path(f"{HOME}/d/b").touch())
        assert {path for _, path in await watching.events()} == {"d/b"}


async def test_relative_paths_start_at_the_working_directory(pilot: Pilot, inside: Inside) -> None:
    inside.do(lambda: Path(f"{HOME}/d").mkdir())
    async with watcher(pilot) as watching:
        assert await watching.subscribe("d", workingDir=HOME) == [
            {"type": "subscribed", "paths": [f"{HOME}/d"]}
        ]


async def test_what_cannot_be_watched_is_said(pilot: Pilot, inside: Inside) -> None:
    async with watcher(pilot) as watching:
        said = await watching.subscribe(f"{HOME}/none", "/private", HOME)
        assert [(each["type"], each.get("code"), each.get("path")) for each in said] == [
            ("error", "ENOENT", f"{HOME}/none"),
            ("error", "EACCES", "/private"),
            ("subscribed", None, None),
        ]
        assert said[0]["message"] == "no such file or directory"
        assert said[-1]["paths"] == [HOME]


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]x",
        '{"type":"subscribe"}',
        '{"type":"subscribe","paths":"/"}',
        '{"type":"subscribe","paths":[]}',
        '{"type":"subscribe","paths":[1]}',
        '{"type":"subscribe","paths":["a"],"workingDir":"b"}',
        '{"type":"subscribe","paths":["/\\u0000"]}',
        '{"type":"subscribe","paths":["/"],"recursive":"perhaps"}',
        '{"type":"subscribe","paths":["/"],"recursive":{}}',
    ],
)
async def test_nonsense_is_answered_and_watching_goes_on(pilot: Pilot, inside: Inside, message: str) -> None:
    async with watcher(pilot, HOME) as watching:
        await watching.send(message)
        said = await watching.next()
        assert said["type"] == "error" and said["message"]
        await watching.send('{"type":"something else"}')
        inside.do(lambda: Path(f"{HOME}/a").touch())
        assert (await watching.events())[0] == ("create", "a")


async def test_lost_changes_are_said(pilot: Pilot, inside: Inside) -> None:
    """A client that takes nothing makes the kernel's queue run over."""

    def flood() -> None:
        Path(f"{HOME}/d").mkdir()
        for number in range(60_000):
            Path(f"{HOME}/d/{number}-{'x' * 100}").touch()
        Path(f"{HOME}/late").mkdir()

    async with pilot.connect("/fs/watch", max_queue=1) as socket:
        watching = Watcher(socket)
        await watching.subscribe(HOME, recursive=True)
        inside.do(flood)
        await asyncio.sleep(1)
        seen = await watching.seen()
        [lost] = [each for each in seen if each["type"] == "error"][:1]
        assert (lost["code"], lost["path"]) == ("EOVERFLOW", HOME) and "lost" in lost["message"]
        inside.do(lambda: Path(f"{HOME}/late/file").touch())
        assert ("create", "late/file") in await watching.events(), "what was made meanwhile is watched"


async def test_nothing_is_left_when_nobody_watches(pilot: Pilot, inside: Inside) -> None:
    def watchers() -> int:
        return sum("inotify" in target for pid in inside.processes() for target in _descriptors(pid))

    before = watchers()
    async with watcher(pilot, HOME):
        assert watchers() == before + 1
    for _ in range(50):
        if watchers() == before:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the watcher is still there")


def _descriptors(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            found.append(str(fd.readlink()))
    return found
