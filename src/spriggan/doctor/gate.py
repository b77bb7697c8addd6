"""The gate: no server is started on a machine that lacks something essential."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spriggan.doctor.finding import Finding, Status
from spriggan.errors import MissingCapability
from spriggan.linux import process

log = logging.getLogger(__name__)


class Gate:
    """An examination of the essential things that is under way in a process of its own."""

    def __init__(self, data: Path) -> None:
        self._answer, theirs = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._answer)
                _examine(data, theirs)
            finally:
                os._exit(0)
        os.close(theirs)

    def require(self) -> None:
        """Wait for its end. Raises ``MissingCapability`` with the words of every check that finds something missing.

        A check that could not find out is logged and does not stand in the way: what it is about may work.
        """
        with os.fdopen(os.dup(self._answer)) as answer:
            text = answer.read()
        found = [(title, Finding(Status(f.pop("status")), **f)) for title, f in json.loads(text or "[]")]
        if not found:
            log.warning("whether this machine has what sprites need could not be found out")
        lacking = [(title, finding) for title, finding in found if finding.status is Status.MISSING]
        if lacking:
            raise refusal(lacking)
        for title, finding in found:
            if finding.status is not Status.WORKS:
                log.warning("%s: %s", title, finding.detail)

    def close(self) -> None:
        """End it, wherever it is."""
        process.kill_quietly(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        os.close(self._answer)


@contextmanager
def gate(data: Path) -> Iterator[Gate]:
    """An examination that runs beside the block and ends with it, at the latest."""
    begun = Gate(data)
    try:
        yield begun
    finally:
        begun.close()


def refusal(lacking: list[tuple[str, Finding]]) -> MissingCapability:
    """The error for what is missing, by title."""
    lines = [f"  {title}: {finding.detail}" for title, finding in lacking]
    fixes = dict.fromkeys(finding.fix for _, finding in lacking if finding.fix)
    return MissingCapability(
        "this machine lacks what sprites need:\n" + "\n".join(lines),
        hint="\n        ".join([*fixes, "'spriggan doctor' shows everything"]),
    )


def _examine(data: Path, answer: int) -> None:
    process.die_with_parent()
    # Only here: what the checks need is nothing that a server needs, and would stay in its memory.
    from spriggan.doctor.checks import ESSENTIAL  # noqa: PLC0415
    from spriggan.doctor.examination import examine  # noqa: PLC0415

    results = examine(ESSENTIAL, data)
    found = [(result.check.title, result.finding.as_dict()) for result in results]
    with os.fdopen(answer, "w") as stream:
        json.dump(found, stream)
