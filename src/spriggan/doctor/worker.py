"""A worker: a process that runs checks, one after another, and can be killed at any time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

from spriggan.doctor import cell
from spriggan.doctor.check import Check, Place, words
from spriggan.doctor.finding import Finding, Status, untried
from spriggan.doctor.privileges import is_privileged
from spriggan.linux import process

_MESSAGE = 65536
_WORDS = 4000  # of a finding's text; the rest of what some program said is of no use
_PATIENCE = 2.0  # for a killed worker to be gone; one that hangs in the kernel is left behind


class Worker:
    """A worker for ``checks``, started at once; in a cell of its own if it is for the private ones."""

    def __init__(self, checks: dict[str, Check], data: Path, cgroup: str, *, private: bool) -> None:
        self.private = private
        self.check: Check | None = None  # the one under way
        self.deadline = 0.0
        self.began = 0.0
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self.socket.close()
                _serve(theirs, checks, data, cgroup, private=private)
            finally:
                os._exit(0)
        theirs.close()

    def begin(self, check: Check) -> None:
        """Start ``check``; the socket becomes readable when it is done or the worker has died."""
        self.check = check
        self.began = time.monotonic()
        self.deadline = self.began + check.limit
        with contextlib.suppress(OSError):  # it died: what is read next says so
            self.socket.send(check.name.encode())

    def finding(self) -> Finding | None:
        """What the check found; None if the worker has died over it."""
        self.check = None
        try:
            message = self.socket.recv(_MESSAGE)
        except OSError:
            message = b""
        if not message:
            return None
        fields = json.loads(message)
        return Finding(Status(fields.pop("status")), **fields)

    def end(self) -> None:
        """Kill the worker with everything it started, and wait until it is gone."""
        self.socket.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            process.kill_quietly(self._pid, number)
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                if os.waitpid(self._pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.001)


def _serve(
    connection: socket.socket, checks: dict[str, Check], data: Path, cgroup: str, *, private: bool
) -> None:
    """Be the worker, until the other end closes."""
    os.setsid()  # Ctrl-C is for whoever started this, who then kills it
    signal.set_wakeup_fd(-1)  # it is that of whoever started this
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    process.die_with_parent()
    scratch, refusal = Path("/nonexistent"), ""
    if private and not is_privileged():
        refusal = "it needs the machine's root"
    elif private:
        try:
            scratch = cell.enter(data)
        except OSError as error:
            refusal = f"no namespaces for it can be made ({words(error)})"
    while name := connection.recv(_MESSAGE).decode():
        if refusal:
            found = untried(f"not tried: {refusal}")
        else:
            own = scratch / name
            if private:
                own.mkdir(mode=0o711, exist_ok=True)
            found = checks[name].run(Place(data=data, cgroup=f"{cgroup}/{name}", scratch=own))
        connection.send(json.dumps(_short(found)).encode())


def _short(found: Finding) -> dict[str, str]:
    return {name: str(value)[:_WORDS] for name, value in found.as_dict().items()}
