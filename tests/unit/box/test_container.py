"""How the box takes what a pilot answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from spriggan.box.box import State
from spriggan.box.container import ContainerBox
from spriggan.errors import Broken
from spriggan.linux import process

SPRITE = "sprite-1"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 x\r\nContent-Length: 21\r\n\r\nInternal Server Error", "answered 500"),
        (b"HTTP/1.1 500 x\r\nContent-Length: 2\r\n\r\n[]", "answered 500"),
        (b'HTTP/1.1 500 x\r\nContent-Length: 22\r\n\r\n{"message": "no room"}', "no room"),
        (b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n", "does not answer"),
        (b"", "does not answer"),
        (b"nonsense\r\n\r\n", "does not answer"),
    ],
)
async def test_every_failure_of_a_pilot_is_one_that_others_expect(
    tmp_path: Path, answer: bytes, words: str
) -> None:
    """Whoever restores a checkpoint puts the old disk back then, which it does not for a surprise."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    (tmp_path / SPRITE).mkdir()
    (tmp_path / SPRITE / "pilot").write_text(f"{os.getpid()} {process.start_time(os.getpid())}\n")
    box = ContainerBox("test1234", tmp_path)
    async with await asyncio.start_unix_server(serve, box.pilot_socket(SPRITE)):
        with pytest.raises(Broken, match=words):
            await box.start_inner(SPRITE)


@pytest.fixture
def ended() -> str:
    """A process that has ended, as it is written down."""
    child = subprocess.Popen(["sleep", "60"])
    named = f"{child.pid} {process.start_time(child.pid)}\n"
    child.kill()
    child.wait()
    return named


def test_a_pilot_that_retired_is_told_from_one_that_died(tmp_path: Path, ended: str) -> None:
    """Its own name says so, as long as nobody served after it, and the keeper and init live."""
    box, run_dir = ContainerBox("test1234", tmp_path), tmp_path / SPRITE
    run_dir.mkdir()
    alive = f"{os.getpid()} {process.start_time(os.getpid())}\n"
    keeper = {"pid": os.getpid(), "started": process.start_time(os.getpid())}
    for name, text in {"pilot": ended, "retired": ended, "init": alive, "keeper": json.dumps(keeper)}.items():
        (run_dir / name).write_text(text)
    assert box.state(SPRITE) is State.RETIRED
    for name, text, state in (
        ("pilot", alive, State.RUNNING),
        ("pilot", "1 1\n", State.GONE),  # another one, which has died since
        ("init", ended, State.ENDED),
        ("keeper", "{}", State.GONE),
    ):
        before = (run_dir / name).read_text()
        (run_dir / name).write_text(text)
        assert box.state(SPRITE) is state, name
        (run_dir / name).write_text(before)
    (run_dir / "retired").unlink()
    assert box.state(SPRITE) is State.GONE


def test_a_process_is_named_for_good(tmp_path: Path, ended: str) -> None:
    process.write_down(tmp_path / "name", os.getpid())
    assert process.written_down(tmp_path / "name") == os.getpid()
    assert process.written_down(tmp_path / "none") is None
    for text in (ended, f"{os.getpid()} 1\n", "", "x y", "1 2 3"):
        (tmp_path / "name").write_text(text)
        assert process.written_down(tmp_path / "name") is None


def test_a_pilot_that_is_started_while_one_looks_is_not_a_dead_one(
    tmp_path: Path, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health is asked for without the sprite's lock, as the successor of a retired pilot is written down."""
    box, run_dir = ContainerBox("test1234", tmp_path), tmp_path / SPRITE
    run_dir.mkdir()
    alive = f"{os.getpid()} {process.start_time(os.getpid())}\n"
    keeper = {"pid": os.getpid(), "started": process.start_time(os.getpid())}
    left = {"pilot": ended, "retired": ended, "init": alive, "keeper": json.dumps(keeper)}
    read, begins = Path.read_text, ""

    def read_text(file: Path, *rest: str) -> str:
        """The file as it is; just before the one named ``begins`` is read, another pilot begins to serve."""
        if file == run_dir / begins:
            (run_dir / "pilot").write_text(alive)
        return read(file, *rest)

    monkeypatch.setattr(Path, "read_text", read_text)
    for begins in left:
        for name, text in left.items():
            (run_dir / name).write_text(text)
        assert box.state(SPRITE) is State.RUNNING, begins
