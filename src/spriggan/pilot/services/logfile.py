"""The log file of a service on the sprite's disk: appended to, rotated by size, read from its end.

The directory is the user's, who may do anything to it: no symlink is followed and only regular
files are touched. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

from spriggan.linux.paths import open_beneath

LIMIT = 8 << 20  # of one file; there is one older one
TAIL = 1 << 20  # how far back from the end of a file lines are looked for
DIRECTORY = "logs/services"  # on the disk; inside it is /.sprite/logs/services


class LogFile:
    """The file of one service. Opened when there is something to write; any thread may call."""

    def __init__(self, disk: Path, name: str, limit: int = LIMIT) -> None:
        self._disk = disk
        self._name = f"{name}.log"
        self._limit = limit
        self._lock = threading.Lock()
        self._fd = -1
        self._closed = False

    @property
    def inside(self) -> str:
        """Its path in the sprite."""
        return f"/.sprite/{DIRECTORY}/{self._name}"

    def append(self, data: bytes) -> None:
        """Write all of ``data``, to a new file if the old one is full. Raises ``OSError``."""
        with self._lock:
            if self._closed:
                raise OSError(errno.ESTALE, "the sprite has ended")
            if self._fd >= 0 and os.fstat(self._fd).st_nlink == 0:
                self._release()  # somebody has removed it
            if self._fd < 0:
                self._open()
            size = os.fstat(self._fd).st_size
            if size and size + len(data) > self._limit:
                self._rotate()
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def tail(self, lines: int) -> list[bytes]:
        """The last lines, oldest first. Raises ``OSError`` for anything but a missing file."""
        found = self._last_lines(self._name, lines)
        if len(found) < lines:
            found = self._last_lines(f"{self._name}.1", lines - len(found)) + found
        return found

    def close(self) -> None:
        """Let go of the file for good: its disk is about to be unmounted."""
        with self._lock:
            self._closed = True
            self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        directory = self._disk / DIRECTORY
        with contextlib.suppress(FileExistsError):
            directory.mkdir()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._fd = _regular(self._disk, f"{DIRECTORY}/{self._name}", flags)

    def _rotate(self) -> None:
        self._release()
        fd = open_beneath(self._disk, DIRECTORY, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.rename(self._name, f"{self._name}.1", src_dir_fd=fd, dst_dir_fd=fd)
        finally:
            os.close(fd)
        self._open()

    def _last_lines(self, name: str, count: int) -> list[bytes]:
        try:
            fd = _regular(self._disk, f"{DIRECTORY}/{name}", os.O_RDONLY)
        except FileNotFoundError:
            return []
        with os.fdopen(fd, "rb") as file:
            size = os.fstat(fd).st_size
            start = max(0, size - TAIL)
            file.seek(start)
            lines = file.read(TAIL).splitlines()
        return lines[1 if start else 0 :][-count:] if count else []


def _regular(disk: Path, path: str, flags: int) -> int:
    fd = open_beneath(disk, path, flags, 0o644)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, f"{path} is not a regular file")
    return fd
