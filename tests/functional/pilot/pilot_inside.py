"""Looks and hands inside the stand-in's namespaces, past the file endpoints."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pilot_client import Pilot

from spriggan.linux import namespaces, process

T = TypeVar("T")


class Inside:
    """Does things as the root of the stand-in's namespaces."""

    def __init__(self, pilot: Pilot) -> None:
        [init] = _children(pilot.pid)
        [self._pid] = [pid for pid in _children(init) if _first_id(pid)]

    def do(self, work: Callable[[], T]) -> T:
        """Run ``work`` in there and return what it returns; a failure is raised here."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                namespaces.setns(
                    process.pidfd_open(self._pid), namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS
                )
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
                answer: tuple[bool, Any] = True, work()
            except BaseException as error:
                answer = False, error
            try:
                os.write(writing, pickle.dumps(answer))
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        os.waitpid(pid, 0)
        good, found = pickle.loads(data)
        if not good:
            raise found
        return found  # type: ignore[no-any-return]

    def processes(self) -> list[int]:
        """All processes in there, those of the file endpoints too."""
        wanted = _mounts(self._pid)
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _mounts(int(entry.name)) == wanted
        ]


def _mounts(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _first_id(pid: int) -> int:
    """What the user namespace of ``pid`` maps its root to."""
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
