"""Snapshot a disk that is in use: run the freezer and judge what it says."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spriggan.errors import Broken
from spriggan.linux import freeze

_FREEZER = Path(__file__).with_name("freezer.py")


@dataclass(frozen=True)
class Pause:
    """What a snapshot cost. The sprite's writers stood still for ``freeze_ms + snapshot_ms`` at most."""

    flush_ms: float
    freeze_ms: float
    snapshot_ms: float


def frozen(mount_fd: int, source: Path, destination: Path, *, read_only: bool) -> Pause:
    """Snapshot ``source`` to ``destination`` while the ext4 mounted from its image is frozen.

    ``mount_fd`` is a descriptor of a directory in that ext4. Raises ``Broken`` if the freeze did not
    hold; then ``destination`` may exist and is worth nothing.
    """
    with ExitStack() as stack:
        fds = [mount_fd]
        for directory in (source, destination.parent):
            fds.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        # Held by the freezer and its watchdog as well, so for as long as one of the three lives.
        fcntl.flock(fds[1], fcntl.LOCK_SH)
        ended = subprocess.run(
            [sys.executable, "-I", "-S", _FREEZER, *map(str, fds), destination.name, str(int(read_only))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            pass_fds=fds,
            start_new_session=True,
            check=False,
        )
    if ended.returncode != 0:
        # Its watchdog has thawed already; this covers that somebody killed both.
        freeze.thaw(mount_fd)
        words = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Broken(f"The freezer of the disk ended with {ended.returncode}: {words or 'it was killed'}")
    return verdict(ended.stdout)


def wait_for_freezer(source: Path, patience: float) -> bool:
    """Wait until nobody freezes or snapshots the disk at ``source``; False after ``patience`` seconds.

    A freezer outlives a server that dies, and goes on with its freeze and its snapshot.
    """
    deadline = time.monotonic() + patience
    directory = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    finally:
        os.close(directory)


def verdict(answer: bytes) -> Pause:
    """Turn the freezer's answer into a ``Pause``, or raise what it means."""
    try:
        facts: dict[str, Any] = json.loads(answer)
        if "error" in facts:
            raise Broken(f"The disk could not be snapshot: {facts['error']}")
        if not facts["held"]:
            raise Broken(
                "The disk was thawed before its snapshot was complete",
                hint="The machine was too busy to finish within two seconds. Try again.",
            )
        return Pause(facts["flush_ms"], facts["freeze_ms"], facts["snapshot_ms"])
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"The freezer of the disk answered nonsense: {answer[:200]!r}") from error
