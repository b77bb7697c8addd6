"""What a server promised, and what may therefore be there after a power cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

Files = dict[str, str]  # path -> digest


@dataclass(frozen=True)
class Report:
    """One line of the guest's reports, and what the disk's log said when it arrived."""

    facts: dict[str, Any]
    flushed: int  # entries of the log at the last flush that was over
    size: int  # bytes of the log


@dataclass(frozen=True)
class Sprite:
    """What a sprite holds: files that were acknowledged, and its checkpoints with theirs."""

    files: Files = field(default_factory=dict)
    checkpoints: dict[str, Files] = field(default_factory=dict)
    next_checkpoint: int = 1


State = Sprite | None  # None: there is no such sprite


@dataclass
class Promises:
    """For each sprite all states that it may be in, and how far the diary must be."""

    allowed: dict[str, list[State]] = field(default_factory=dict)
    diary: int = 0

    def of(self, name: str) -> list[State]:
        return self.allowed.get(name, [None])


def at(reports: Iterable[Report], cut: int) -> Promises:
    """The promises made by the time that the disk's log had ``cut`` entries.

    A change that was announced and not acknowledged by then may have happened or not. What was
    acknowledged with more entries in the log than ``cut`` may have needed them.
    """
    now = Promises()
    begun: dict[int, dict[str, Any]] = {}
    for report in reports:
        if report.flushed > cut:
            break
        facts = report.facts
        if facts["say"] == "begin":
            begun[facts["number"]] = facts
            before = now.of(facts["sprite"])
            now.allowed[facts["sprite"]] = [*before, *(_after(facts, state, now) for state in before)]
        elif facts["say"] == "done":
            change = begun[facts["number"]]
            # Whatever was possible before, this change is over: the second half of what _begin allowed.
            possible = now.of(change["sprite"])
            now.allowed[change["sprite"]] = _distinct(possible[len(possible) // 2 :])
        elif facts["say"] == "diary":
            now.diary = facts["number"] + 1
    return now


def _after(change: dict[str, Any], state: State, now: Promises) -> State:
    """What ``change`` makes of a sprite."""
    what = change["what"]
    if what == "create":
        return Sprite()
    if what == "destroy":
        return None
    if what == "fork":
        (source,) = now.of(change["source"])
        assert source is not None
        return Sprite(dict(source.files))
    if state is None:
        return None
    if what == "write":
        return replace(state, files={**state.files, change["path"]: change["digest"]})
    if what == "checkpoint":
        made = f"v{state.next_checkpoint}"
        checkpoints = {**state.checkpoints, made: dict(state.files)}
        return replace(state, checkpoints=checkpoints, next_checkpoint=state.next_checkpoint + 1)
    if what == "delete_checkpoint":
        return replace(state, checkpoints={k: v for k, v in state.checkpoints.items() if k != change["id"]})
    if what == "restore":
        # The disk that was live is kept as a checkpoint, too, which only shows when asked for.
        return replace(state, files=dict(state.checkpoints[change["id"]]))
    raise ValueError(f"unknown change: {what}")


def _distinct(states: list[State]) -> list[State]:
    found: list[State] = []
    for state in states:
        if state not in found:
            found.append(state)
    return found


def broken(promises: Promises, found: dict[str, Any]) -> list[str]:
    """What the inventory of a disk has against the promises; nothing if all were kept."""
    if "error" in found:
        return [f"the server did not work: {found['error']}"]
    wrong = []
    names = {*promises.allowed, *found["sprites"]}
    for name in sorted(names):
        there = found["sprites"].get(name)
        if not any(_matches(name, state, there, found["forks"]) for state in promises.of(name)):
            wrong.append(f"{name} is {there}, forks {_forks(name, found)}; allowed is {promises.of(name)}")
    diary = found["sprites"].get("diary", {}).get("diary", 0)
    if diary < promises.diary:
        wrong.append(f"the diary has {diary} whole entries of {promises.diary} that were fsynced")
    wrong += [f"in the pool, and nobody's: {path}" for path in found["strays"]]
    if "left" in found:
        wrong.append(f"left after down: {found['left']}")
    if found["pool"]:
        wrong.append(f"the pool is damaged: {found['pool']}")
    return wrong


def _forks(name: str, found: dict[str, Any]) -> dict[str, Files]:
    return {key: files for key, files in found["forks"].items() if key.split()[0] == name}


def _matches(name: str, state: State, there: dict[str, Any] | None, forks: dict[str, Files]) -> bool:
    if state is None or there is None:
        return state is None and there is None
    if sorted(there["checkpoints"]) != sorted(state.checkpoints):
        return False
    if any(
        not _holds(files, state.checkpoints[key.split()[1]])
        for key, files in forks.items()
        if key.split()[0] == name
    ):
        return False
    return _holds(there["files"], state.files)


def _holds(found: Files, promised: Files) -> bool:
    return all(found.get(path) == digest for path, digest in promised.items())
