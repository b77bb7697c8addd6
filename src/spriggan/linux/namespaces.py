"""Namespaces: leave, join, and make a user namespace with a given id map."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from spriggan.linux import capabilities, libc

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

ID_COUNT = 65536  # ids in a sprite's user namespace

_READY = b"1"

T = TypeVar("T")


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (``CLONE_NEW*``), or a root directory of its own (``CLONE_FS``)."""
    libc.syscall("unshare", flags, what=f"unshare({flags:#x})")


def setns(fd: int, flags: int = 0) -> None:
    """Move the calling thread into the namespace that ``fd`` refers to.

    ``fd`` is a namespace file, or a pidfd with ``flags`` naming several at once.
    """
    libc.syscall("setns", fd, flags, what=f"setns(fd {fd}, {flags:#x})")


def open_namespace(pid: int | str, kind: str) -> int:
    """Open namespace ``kind`` (``"net"``, ``"mnt"``, ``"user"``…) of a process; the caller closes it."""
    return os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


def in_thread(work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own that ends afterwards, and return its result.

    A thread may leave its network namespace without taking the process along; because
    the thread ends, nobody else is ever run in the wrong one.
    """
    results: list[T] = []
    with beside(lambda: results.append(work())):
        pass
    return results[0]


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Run ``work`` in a thread of its own while the block runs; both are done afterwards.

    Raises what the block raised, or else what ``work`` raised.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed to the caller below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def in_network(netns: int, work: Callable[[], T]) -> T:
    """Run ``work`` inside network namespace ``netns`` (a file descriptor)."""

    def run() -> T:
        setns(netns, CLONE_NEWNET)
        return work()

    return in_thread(run)


def set_hostname(pid: int, name: str) -> None:
    """Name the host that process ``pid`` is on, as its namespace has it."""
    namespace = open_namespace(pid, "uts")

    def work() -> None:
        setns(namespace, CLONE_NEWUTS)
        socket.sethostname(name)

    try:
        in_thread(work)
    finally:
        os.close(namespace)


def new_network() -> int:
    """Make a network namespace and return a descriptor that keeps it; the caller closes it."""

    def run() -> int:
        unshare(CLONE_NEWNET)
        return open_namespace("thread-self", "net")

    return in_thread(run)


def in_new_network(work: Callable[[], T]) -> T:
    """Run ``work`` inside a network namespace that ends with it."""
    netns = new_network()
    try:
        return in_network(netns, work)
    finally:
        os.close(netns)


@contextmanager
def user_namespace(first_id: int, flags: int = 0) -> Iterator[int]:
    """Yield the pid of a process inside a new user namespace mapping 0…65535 to ``first_id``….

    ``flags`` names further namespaces (``CLONE_NEWNET``…) that are made inside it, and so
    belong to it. The process ends with the block: open what is needed from
    ``/proc/<pid>/ns`` before that. Needs CAP_SETUID and CAP_SETGID in the parent namespace.

    The namespace belongs to ``first_id``, not to root: what the kernel counts per user (inotify
    instances, message queues, pending signals, namespaces) it counts for the owner as well, and
    with root as the owner of all, one namespace could use up what the others and the host need.
    It is made with root's capabilities all the same: some hosts let nobody else make one (Debian's
    kernel.unprivileged_userns_clone, Ubuntu's kernel.apparmor_restrict_unprivileged_userns).
    """
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    done_r, done_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(done_w)
            os.setresgid(first_id, first_id, first_id)
            capabilities.keep()
            os.setresuid(first_id, first_id, first_id)
            capabilities.raise_permitted()
            unshare(CLONE_NEWUSER)
            if flags:
                unshare(flags)
            os.write(ready_w, _READY)
            os.read(done_r, 1)
        except OSError as error:
            os.write(ready_w, (error.strerror or str(error)).encode())
        finally:
            os._exit(0)
    try:
        os.close(ready_w)
        os.close(done_r)
        if (said := os.read(ready_r, 1024)) != _READY:
            raise OSError(f"a user namespace cannot be made: {said.decode() or 'the child died'}")
        for name in ("uid_map", "gid_map"):
            _map_ids(Path(f"/proc/{pid}/{name}"), first_id)
        yield pid
    finally:
        os.close(ready_r)
        os.close(done_w)
        os.waitpid(pid, 0)


def _map_ids(file: Path, first_id: int) -> None:
    try:
        file.write_text(f"0 {first_id} {ID_COUNT}\n")
    except OSError as error:
        what = f"map {ID_COUNT} ids from {first_id} in a user namespace ({file.name})"
        raise OSError(error.errno, f"{what}: {error.strerror}") from error
