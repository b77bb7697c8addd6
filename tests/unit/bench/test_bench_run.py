"""A run of benchmarks as a whole, with benchmarks that need nothing."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from test_bench_figures import MACHINE

from bench import __main__ as run
from bench import document
from bench.figures import Row
from bench.interruption import Interruption, Undone
from bench.setting import Setting


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """``good`` measures, ``bad`` fails; ``stopped`` is interrupted."""

    def bad(setting: Setting) -> list[Row]:
        raise RuntimeError("it broke")

    def stopped(setting: Setting) -> list[Row]:
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("it went on")

    measures = {
        "bad": bad,
        "good": lambda setting: [Row("a thing", [1.0] * setting.rounds)],
        "stopped": stopped,
    }
    for name, measure in measures.items():
        module = ModuleType(f"bench.{name}", f"What {name} is.\n\nMore of it.")
        monkeypatch.setattr(module, "measure", measure, raising=False)
        monkeypatch.setitem(sys.modules, f"bench.{name}", module)
    monkeypatch.setattr(run, "NAMES", ["bad", "good"])
    monkeypatch.setattr(run, "machine", lambda: MACHINE)
    monkeypatch.setattr(run, "DOCUMENT", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(f"{document.START}\n{document.END}\n")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    return run.main()


def test_one_that_fails_stops_no_other_and_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    assert called(monkeypatch, "--rounds", "3", "--document", "--json", str(figures)) == 1
    assert "these failed: bad" in capsys.readouterr().err
    found = json.loads(figures.read_text())
    assert found["rounds"] == 3
    assert found["benchmarks"]["bad"]["failed"] == "it broke"
    assert found["benchmarks"]["good"]["rows"][0]["samples"] == [1.0, 1.0, 1.0]
    page = (tmp_path / "page.md").read_text()
    assert "## What bad is\n\nMore of it.\n\nThis one failed in this run." in page
    assert "## What good is\n\nMore of it.\n\n| what |" in page


def test_all_well_is_zero(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(monkeypatch, "good") == 0
    assert "| a thing | 1.00 ms |" in capsys.readouterr().out


def test_an_interrupted_run_keeps_what_it_has_and_writes_no_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "NAMES", ["good", "stopped"])
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    before = page.read_text()
    assert called(monkeypatch, "--document", "--json", str(figures)) == 130
    assert list(json.loads(figures.read_text())["benchmarks"]) == ["good"]
    assert page.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "there is no benchmark nothing"),
        (["good", "--document"], "--document takes a run of all"),
        (["--rounds", "0"], "--rounds must be 1 or more"),
        (["--json", "/nowhere/figures.json"], "there is no directory /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        called(monkeypatch, *arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_what_is_being_undone_is_undone_before_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    interruption, done = Interruption(), []

    @contextmanager
    def thing() -> Iterator[None]:
        yield
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        done.append("undone")

    interruption.listen()
    with pytest.raises(KeyboardInterrupt), Undone(thing(), interruption):
        done.append("used")
    assert done == ["used", "undone"]
    with interruption.held():  # what it was for has ended; the rest of the way out is not disturbed again
        done.append("more")
    assert interruption.came
