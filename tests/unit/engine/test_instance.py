"""A data directory has one id and one holder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spriggan.engine import instance
from spriggan.errors import Broken, Conflict
from spriggan.linux import durably


def test_the_id_stays(tmp_path: Path) -> None:
    mine = instance.Instance(tmp_path / "data")
    first = mine.open()
    mine.close()
    assert mine.open() == first == instance.read_id(tmp_path / "data")
    assert len(first) == 8
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    mine.close()


def test_a_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    mine, other = instance.Instance(tmp_path), instance.Instance(tmp_path)
    mine.open()
    with pytest.raises(Conflict, match=f"process {os.getpid()}") as caught:
        other.open()
    assert str(os.getpid()) in caught.value.hint
    mine.close()
    other.open()
    other.close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from spriggan.engine import instance\n"
        "i = instance.Instance(pathlib.Path(sys.argv[1])); i.open(); print('held', flush=True); sys.stdin.read()"
    )
    held = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert held.stdout is not None and held.stdout.readline() == b"held\n"
        assert instance.holder(tmp_path) == held.pid
        with pytest.raises(Conflict, match=str(held.pid)):
            instance.Instance(tmp_path).open()
    finally:
        held.kill()
        held.communicate()
    assert instance.holder(tmp_path) is None
    mine = instance.Instance(tmp_path)
    mine.open()
    mine.close()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id": 5}', '{"id": "../../x"}', '{"id": "ABCDEFGH"}'])
def test_a_damaged_id_is_not_made_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "instance.json").write_text(text)
    mine = instance.Instance(tmp_path)
    with pytest.raises(Broken):
        mine.open()
    assert (tmp_path / "instance.json").read_text() == text


def test_writing_leaves_no_pieces(tmp_path: Path) -> None:
    durably.write_text(tmp_path / "f", "one")
    durably.write_text(tmp_path / "f", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "two"
