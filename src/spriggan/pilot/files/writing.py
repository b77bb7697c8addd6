"""Writing a whole file from a stream."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any

from spriggan.pilot.files import replacing
from spriggan.pilot.files.answers import LENGTH, octal, reply


def write(request: dict[str, Any], stream: socket.socket) -> None:
    """Take the content from ``stream`` and answer when it is safe on the disk."""
    path = request["path"]
    parent, name = os.path.split(path)
    if name in ("", ".", ".."):
        raise OSError(errno.EISDIR, "Is a directory", path)
    if request["parents"]:
        _make_directories(parent)
    else:
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent)
    target = replacing.find(path)
    mode = target.mode(request["mode"])
    with replacing.replacement(target, mode) as fd:
        size = _receive(stream, fd)
    reply(stream, path=os.path.normpath(path), size=size, mode=octal(mode))


def _make_directories(path: str) -> None:
    """Make ``path`` with all its parents. ``os.makedirs`` recurses, and a path may have thousands."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)


def _receive(stream: socket.socket, fd: int) -> int:
    """Take length-prefixed pieces until one of length 0; an end without it means: forget it all."""
    total = 0
    while True:
        (length,) = LENGTH.unpack(_exactly(stream, LENGTH.size))
        if length == 0:
            return total
        data = memoryview(_exactly(stream, length))
        total += length
        while data:
            data = data[os.write(fd, data) :]


def _exactly(stream: socket.socket, length: int) -> bytearray:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        count = stream.recv_into(view)
        if count == 0:
            raise OSError(errno.ECANCELED, "the upload was broken off; nothing was written")
        view = view[count:]
    return buffer
