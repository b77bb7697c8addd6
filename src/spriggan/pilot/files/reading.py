"""Reading a file, or a range of it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from spriggan.pilot.files.answers import CHUNK, LENGTH, reply

# What these lead to depends on who asks. A program asks for itself; through the API nobody inside
# does, and the sprite's first process is what comes closest.
_OWN = {
    "/proc/self": "/proc/1",
    "/proc/thread-self": "/proc/1/task/1",
    "/proc/mounts": "/proc/1/mounts",
    "/proc/net": "/proc/1/net",
}


def read(request: dict[str, Any], stream: socket.socket) -> None:
    """Answer with what is known of the file, then its bytes.

    Those of a file whose length nobody knows come in pieces with their lengths.
    """
    path = visible(request["path"])
    wanted = request.get("range")
    fd = open_regular(path)
    with os.fdopen(fd, "rb", buffering=0):
        info = os.fstat(fd)
        head = b""
        if info.st_blocks == 0:
            # Of a pseudo file, as in /proc, the size says nothing.
            head = _up_to(fd, CHUNK)
            if len(head) < CHUNK:
                _send_whole(stream, request["path"], head, wanted, info)
                return
            if info.st_size == 0:
                _send_unknown(stream, request["path"], head, fd, info)
                return
        start, length = _range(wanted, info.st_size)
        reply(
            stream,
            path=request["path"],
            size=info.st_size,
            start=start,
            length=length,
            mtime=info.st_mtime,
        )
        # What grows or shrinks meanwhile must not change how much is sent.
        sent = 0
        while sent < length:
            count = os.sendfile(stream.fileno(), fd, start + sent, min(length - sent, CHUNK * 4))
            if count == 0:
                return
            sent += count


def visible(path: str) -> str:
    """Where to look for ``path``."""
    plain = os.path.normpath(path)
    for own, first in _OWN.items():
        if plain == own or plain.startswith(f"{own}/"):
            return first + plain.removeprefix(own)
    return path


def open_regular(path: str) -> int:
    """Open a file for reading. What is not regular is not opened: that alone could hang or surprise."""
    _check(os.stat(path).st_mode, path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(os.fstat(fd).st_mode, path)
    except OSError:
        os.close(fd)
        raise
    return fd


def _check(mode: int, path: str) -> None:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "Is a directory", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file", path)


def _send_whole(
    stream: socket.socket, path: str, data: bytes, wanted: list[int | None] | None, info: os.stat_result
) -> None:
    start, length = _range(wanted, len(data))
    reply(stream, path=path, size=len(data), start=start, length=length, mtime=info.st_mtime)
    stream.sendall(data[start : start + length])


def _send_unknown(stream: socket.socket, path: str, head: bytes, fd: int, info: os.stat_result) -> None:
    reply(stream, path=path, size=None, start=0, length=None, mtime=info.st_mtime)
    piece = head
    while piece:
        stream.sendall(LENGTH.pack(len(piece)) + piece)
        piece = os.read(fd, CHUNK)
    stream.sendall(LENGTH.pack(0))


def _up_to(fd: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := os.read(fd, size - len(data))):
        data += piece
    return bytes(data)


def _range(wanted: list[int | None] | None, size: int) -> tuple[int, int]:
    """First byte and length of a ``[first, last]`` range; ERANGE if it lies outside the file."""
    if wanted is None:
        return 0, size
    first, last = wanted
    if first is None:  # the last so many bytes
        length = min(last or 0, size)
        if length == 0:
            raise OSError(errno.ERANGE, str(size))
        return size - length, length
    if first >= size:
        raise OSError(errno.ERANGE, str(size))
    end = size - 1 if last is None else min(last, size - 1)
    return first, end - first + 1
