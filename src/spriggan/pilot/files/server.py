"""The files fork server: one process that forks a child for every operation.

The child joins the sprite's user and mount namespaces and becomes the target user before it
touches a path, with nothing open but the connection it answers on. So no path trick reaches more
than that user could reach from a shell, and no permission has to be checked by hand.

It is forked off the pilot: so it has one thread, which joining a user namespace takes, and everything that
a child needs is imported already. That matters: after joining, an import would run the sprite's code.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from spriggan.linux import namespaces, process
from spriggan.pilot.files import operations
from spriggan.pilot.files.patience import WORKING

LINGER_S = 5.0
_CONNECTION = 3  # where a child keeps its only descriptor


@dataclass(frozen=True)
class Server:
    """A running server: the process, and the socket to ask it on. It ends when that is closed."""

    pid: int
    requests: socket.socket


def start() -> Server:
    """Fork the server. It goes its own way at once, so it does not matter that the caller may have threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            _serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return Server(pid, ours)


def _serve(requests: socket.socket) -> None:
    process.set_name(WORKING)
    signal.set_wakeup_fd(-1)  # the event loop's
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # autofs does not mount for the pilot's own group
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    kept = os.dup2(requests.fileno(), _CONNECTION + 1)
    os.dup2(kept, _CONNECTION)
    process.close_range(_CONNECTION + 1)
    requests = socket.socket(fileno=_CONNECTION)
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 65536, 1)
        if not message:
            with suppress(ChildProcessError):
                os.wait()  # for all of them: left behind, they would be the pilot's to reap
            return
        try:
            pid = os.fork()
        except OSError:
            pid = -1  # who asked sees its connection closed
        if pid == 0:
            try:
                _answer(json.loads(message), fds[0])
            finally:
                os._exit(0)
        for fd in fds:
            os.close(fd)


def _answer(request: dict[str, Any], connection: int) -> None:
    """Do one operation. Runs in a child of its own."""
    pidfd = process.pidfd_open(int(request["init_pid"]))
    os.dup2(connection, _CONNECTION)
    os.dup2(pidfd, _CONNECTION + 1)
    process.close_range(_CONNECTION + 2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # what was begun is tidied up
    with socket.socket(fileno=_CONNECTION) as stream:
        _introduce(stream)
        try:
            namespaces.setns(_CONNECTION + 1, namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
            os.close(_CONNECTION + 1)
            sys.meta_path.clear()  # also for submodules, which sys.path is not asked for
            operations.perform(request, stream)
        except OSError as error:
            _refuse(stream, error, str(request.get("path", "")))
        except (ValueError, KeyError, OverflowError) as error:
            _refuse(stream, OSError(errno.EINVAL, str(error)), str(request.get("path", "")))
        except (MemoryError, RecursionError) as error:
            _refuse(stream, OSError(errno.ENOMEM, repr(error)), str(request.get("path", "")))


def _introduce(stream: socket.socket) -> None:
    """Hand over what this process can be ended with, before anything is touched that could hang."""
    own = process.pidfd_open(os.getpid())
    socket.send_fds(stream, [b"."], [own])
    os.close(own)


def _refuse(stream: socket.socket, error: OSError, path: str) -> None:
    code = errno.errorcode.get(error.errno or errno.EIO, "EIO")
    named = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    # A name in an open directory says nothing to the client.
    shown = named if named.startswith("/") else path
    reply = {"code": code, "error": error.strerror or str(error), "path": shown}
    try:
        stream.sendall(json.dumps(reply).encode() + b"\n")
        # Closed with input unread, the connection would be reset, and the reply lost with it.
        stream.shutdown(socket.SHUT_WR)
        stream.settimeout(LINGER_S)
        while stream.recv(65536):
            continue
    except OSError:
        return  # nobody listens any more
