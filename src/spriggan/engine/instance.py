"""A data directory: whose it is, and who is using it now."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import string
from pathlib import Path

from spriggan.errors import Broken, Conflict, InvalidValue
from spriggan.linux import durably, process

_ID = re.compile(r"[a-z0-9]{8}")
_ALPHABET = string.ascii_lowercase + string.digits


class Instance:
    """One data directory, held by one process at a time.

    The lock belongs to an open file that is closed on exec. A child that was forked
    without an exec and lives on must close it, or it would hold the lock.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._lock: int | None = None

    def open(self) -> str:
        """Take the lock, and return the instance id, made at the first time.

        Raises ``Conflict`` naming the process that holds the data directory, and ``InvalidValue`` if it
        can be none.
        """
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self.data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidValue(
                f"{self.data} cannot be a data directory: {error.strerror}",
                hint="name a directory with --data that can be made and written",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            pid = holder(self.data)
            raise Conflict(
                f"another server{f' (process {pid})' if pid else ''} is using {self.data}",
                hint=f"stop it{f' with: kill {pid}' if pid else ''}, or use another --data directory",
            ) from None
        self._lock = fd
        try:
            mine = {"pid": os.getpid(), "start_time": process.start_time(os.getpid())}
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(mine).encode(), 0)
            return read_id(self.data) or self._make_id()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the data directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _make_id(self) -> str:
        new = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        durably.write_text(self.data / "instance.json", json.dumps({"id": new}) + "\n")
        return new


def read_id(data: Path) -> str | None:
    """The instance id of a data directory; None if it has none yet."""
    path = data / "instance.json"
    try:
        found = json.loads(path.read_text())["id"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(
            f"{path} is damaged", hint='it holds {"id": "<8 letters or digits>"}; restore it from a backup'
        ) from error
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise Broken(
            f"{path} holds no instance id", hint='it holds {"id": "<8 letters or digits>"}; restore it'
        )
    return found


def holder(data: Path) -> int | None:
    """The process that wrote itself into the lock file, if it still lives."""
    try:
        known = json.loads((data / "lock").read_text())
        pid, started = int(known["pid"]), int(known["start_time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if process.start_time(pid) == started else None
