"""What a child that did a file operation answers: one line of JSON, and for a read the bytes after it."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
from datetime import UTC, datetime
from typing import Any

LENGTH = struct.Struct("!I")  # before every piece of a stream; 0 is its end
CHUNK = 256 * 1024
MAX_ENTRIES = 100_000  # named in one answer


def reply(stream: socket.socket, **fields: object) -> None:
    stream.sendall(json.dumps(fields).encode() + b"\n")


def entry(path: str, name: str, info: os.stat_result) -> dict[str, Any]:
    """A file or directory as listings show it."""
    kind = "file"
    if stat.S_ISDIR(info.st_mode):
        kind = "directory"
    elif stat.S_ISLNK(info.st_mode):
        kind = "symlink"
    return {
        "name": name,
        "path": path,
        "type": kind,
        "size": info.st_size,
        "mode": octal(info.st_mode),
        "modTime": timestamp(info.st_mtime),
        "isDir": kind == "directory",
    }


def octal(mode: int) -> str:
    """The permission bits as the API writes them: ``0644``."""
    return f"{stat.S_IMODE(mode):04o}"


def timestamp(seconds: float) -> str:
    """RFC 3339; a time that has no such form becomes the nearest that has."""
    first, last = -62135596800, 253402300799  # years 1 and 9999
    moment = datetime.fromtimestamp(min(max(seconds, first), last), UTC)
    return moment.isoformat().replace("+00:00", "Z")
