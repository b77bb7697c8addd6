"""Watching files and directories by inotify, for as long as somebody listens.

The conversation is in lines of JSON. ``{"watch": [path…], "recursive": …}`` and ``{"unwatch": [path…]}``
come; messages go as clients get them. The events are those of inotify in the words that Go's
fsnotify has for them, as the clients of this API know them.

A directory is watched itself, for what happens to the names in it. A file is watched by its name in
its directory, so that it stays watched when it is replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spriggan.linux import libc
from spriggan.pilot.files.answers import reply, timestamp
from spriggan.pilot.files.replacing import TEMPORARY

# inotify(7)
IN_MODIFY = 0x002
IN_ATTRIB = 0x004
IN_MOVED_FROM = 0x040
IN_MOVED_TO = 0x080
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x1000000
IN_DONT_FOLLOW = 0x2000000
IN_ISDIR = 0x40000000
_NAMES = {
    IN_CREATE: "create",
    IN_MOVED_TO: "create",
    IN_MODIFY: "write",
    IN_ATTRIB: "chmod",
    IN_DELETE: "remove",
    IN_MOVED_FROM: "rename",
}
_MASK = sum(_NAMES) | IN_DELETE_SELF | IN_MOVE_SELF
_EVENT = struct.Struct("iIII")

GATHER_S = 0.05  # what happens within this time is told together, and the same thing once
MAX_DIRECTORIES = 50_000
MAX_WAITING = 1 << 20  # bytes not taken by the client; beyond, the kernel's queue is left to fill
LOST = "changes came faster than they were taken, and some are lost; look at the files again"
TOO_MANY = "too many directories to watch"


@dataclass(frozen=True)
class Root:
    """A path that a client asked for."""

    path: str
    directory: str
    only: str | None  # the one name in the directory that matters; None: all, and those below if recursive
    recursive: bool


@dataclass(frozen=True)
class Place:
    """A path at which a watched directory is seen, on behalf of one root."""

    path: str
    root: Root


def watch(request: dict[str, Any], stream: socket.socket) -> None:
    """Serve one watcher until it hangs up."""
    try:
        watcher = _Watcher(stream)
    except OSError as error:
        raise OSError(error.errno, "too many watchers on this host", "") from error
    reply(stream)
    stream.setblocking(False)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        watcher.run()


class _Watcher:
    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._inotify = _new_inotify()
        self._watched: dict[int, set[Place]] = {}  # by the kernel's number
        self._roots: dict[str, Root] = {}
        self._replacing: dict[int, str] = {}  # renames under way by the API, and what they make of a file
        self._events = _Gathered()
        self._input = bytearray()
        self._output = bytearray()

    def run(self) -> None:
        while True:
            poll = select.poll()
            poll.register(self._stream, select.POLLIN | (select.POLLOUT if self._output else 0))
            poll.register(self._inotify, 0 if len(self._output) > MAX_WAITING else select.POLLIN)
            wait = self._events.wait()
            ready = dict(poll.poll(None if wait is None else wait * 1000))
            if ready.get(self._inotify, 0) & select.POLLIN:
                self._changes()
            if ready.get(self._stream.fileno(), 0) & ~select.POLLOUT and not self._commands():
                return
            if self._events.wait() == 0:
                for event, path, is_directory in self._events.take():
                    self._tell(type="event", event=event, path=path, **_look(path, is_directory))
            self._flush()

    # What the client wants

    def _commands(self) -> bool:
        """Do what was asked; False when the client is gone."""
        data = self._stream.recv(65536)
        self._input += data
        *lines, rest = bytes(self._input).split(b"\n")
        self._input = bytearray(rest)
        for line in lines:
            wanted = json.loads(line)
            for path in wanted.get("unwatch", []):
                self._unsubscribe(path)
            if "watch" in wanted:
                recursive = wanted["recursive"]
                done = [os.path.normpath(p) for p in wanted["watch"] if self._subscribe(p, recursive)]
                self._tell(type="subscribed", paths=done)
        return bool(data)

    def _subscribe(self, path: str, recursive: bool) -> bool:
        self._unsubscribe(path)
        try:
            root = _root(path, recursive)
            self._roots[path] = root
            self._add(root.directory, root)
        except OSError as error:
            self._unsubscribe(path)
            self._tell_error(error, os.path.normpath(path))
            return False
        return True

    def _unsubscribe(self, path: str) -> None:
        if (root := self._roots.pop(path, None)) is not None:
            self._drop(lambda place: place.root == root)

    # What the kernel watches

    def _add(self, path: str, root: Root, *, tell: bool = False) -> None:
        """Watch a directory for ``root``, and all below it if that is recursive.

        ``tell``: it is new, and so is all that is in it. Raises ``OSError`` if it cannot be watched, or
        something below cannot for want of room; what is gone again or may not be read is left out there.
        """
        pending = [path]
        while pending:
            directory = pending.pop()
            try:
                self._add_one(directory, root)
                for child in os.scandir(directory) if root.recursive else ():
                    is_directory = child.is_dir(follow_symlinks=False)
                    if tell and not TEMPORARY.fullmatch(child.name):
                        self._events.add("create", child.path, is_directory)
                    if is_directory:
                        pending.append(child.path)
            except OSError as error:
                if directory == path or error.errno == errno.ENOSPC:
                    raise

    def _add_one(self, path: str, root: Root) -> None:
        if len(self._watched) >= MAX_DIRECTORIES:
            raise OSError(errno.ENOSPC, TOO_MANY)
        mask = _MASK | IN_ONLYDIR | (0 if path == root.directory else IN_DONT_FOLLOW)
        name = ctypes.c_char_p(os.fsencode(path))
        number = libc.call("inotify_add_watch", self._inotify, name, mask, what="inotify_add_watch")
        self._watched.setdefault(number, set()).add(Place(path, root))

    def _drop(self, matches: Any) -> None:
        """Do not watch for those places any more."""
        for number, places in list(self._watched.items()):
            places -= {place for place in places if matches(place)}
            if not places:
                del self._watched[number]
                with contextlib.suppress(OSError):  # the kernel may have dropped it itself
                    libc.call("inotify_rm_watch", self._inotify, number, what="inotify_rm_watch")

    # What happens

    def _changes(self) -> None:
        for number, mask, cookie, name in _read_events(self._inotify):
            if mask & IN_Q_OVERFLOW:
                self._start_again()
                return
            if mask & IN_IGNORED:
                self._watched.pop(number, None)
            elif TEMPORARY.fullmatch(name):
                if mask & IN_MOVED_FROM:
                    self._replacing[cookie] = name
            else:
                made = self._replacing.pop(cookie, "") if mask & IN_MOVED_TO else ""
                for place in list(self._watched.get(number, ())):
                    self._change(place, mask, name, made)

    def _change(self, place: Place, mask: int, name: str, made: str) -> None:
        root = place.root
        if not name:
            self._change_of_itself(place, mask)
            return
        if root.only not in (None, name):
            return
        path = root.path if root.only else f"{place.path.rstrip('/')}/{name}"
        is_directory = bool(mask & IN_ISDIR)
        if made and not is_directory:
            for event in ("create", "write") if made.endswith(".new") else ("write",):
                self._events.add(event, path, False)
            return
        for bit, event in _NAMES.items():
            if mask & bit:
                self._events.add(event, path, is_directory)
        if is_directory and mask & IN_MOVED_FROM:
            # What is below it has other names now.
            self._drop(lambda other: other.root == root and f"{other.path}/".startswith(f"{path}/"))
        if is_directory and mask & (IN_CREATE | IN_MOVED_TO) and root.recursive:
            try:
                self._add(path, root, tell=True)
            except OSError as error:
                if error.errno == errno.ENOSPC:  # else it is gone again
                    self._tell_error(error, path)

    def _change_of_itself(self, place: Place, mask: int) -> None:
        """Of a directory below, the one above says it by its name."""
        if place.path != place.root.directory:
            return
        if mask & IN_MOVE_SELF:
            self._events.add("rename", place.root.path, place.root.only is None)
        elif place.root.only is None:
            self._events.add("remove" if mask & IN_DELETE_SELF else "chmod", place.root.path, True)

    def _start_again(self) -> None:
        """The kernel has dropped changes; new directories may have been among them."""
        os.close(self._inotify)
        self._inotify = _new_inotify()
        self._watched.clear()
        self._replacing.clear()
        for path, root in list(self._roots.items()):
            self._tell(type="error", code="EOVERFLOW", message=LOST, path=root.path)
            try:
                self._add(root.directory, root)
            except OSError as error:
                self._unsubscribe(path)
                self._tell_error(error, root.path)

    # What the client is told

    def _tell_error(self, error: OSError, path: str) -> None:
        code = errno.errorcode.get(error.errno or 0, "EIO")
        message = TOO_MANY if code == "ENOSPC" else os.strerror(error.errno or errno.EIO).lower()
        self._tell(type="error", code=code, message=message, path=path)

    def _tell(self, **message: object) -> None:
        self._output += json.dumps(message).encode() + b"\n"

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._output:
                del self._output[: self._stream.send(self._output[: 1 << 16])]


class _Gathered:
    """What happened since it was last told, each thing once as long as that makes no difference."""

    def __init__(self) -> None:
        self._all: list[tuple[str, str, bool]] = []
        self._of: dict[str, set[str]] = {}  # what happened to a path since it last came or went
        self._since = 0.0

    def add(self, event: str, path: str, is_directory: bool) -> None:
        if not self._all:
            self._since = time.monotonic()
        seen = self._of.setdefault(path, set())
        if event in seen:
            return
        if event in ("create", "remove", "rename"):
            seen.clear()
        seen.add(event)
        self._all.append((event, path, is_directory))

    def wait(self) -> float | None:
        """How long until it is to be told; None if there is nothing."""
        return max(0.0, self._since + GATHER_S - time.monotonic()) if self._all else None

    def take(self) -> list[tuple[str, str, bool]]:
        found, self._all = self._all, []
        self._of.clear()
        return found


def _new_inotify() -> int:
    return libc.call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC, what="inotify_init1")


def _read_events(inotify: int) -> Iterator[tuple[int, int, int, str]]:
    """Number of the watch, mask, cookie and name of each change."""
    try:
        data = os.read(inotify, 1 << 16)
    except BlockingIOError:
        return
    at = 0
    while at < len(data):
        number, mask, cookie, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield number, mask, cookie, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length


def _root(path: str, recursive: bool) -> Root:
    """What to watch for ``path``. Raises ``OSError`` if it is not there."""
    path = os.path.normpath(path)
    if stat.S_ISDIR(os.stat(path).st_mode):
        return Root(path, path, None, recursive)
    directory, name = os.path.split(os.path.realpath(path))
    return Root(path, directory, name, False)


def _look(path: str, is_directory: bool) -> dict[str, object]:
    try:
        info = os.lstat(path)
        size, is_directory = info.st_size, stat.S_ISDIR(info.st_mode)
    except OSError:
        size = 0
    return {"timestamp": timestamp(time.time()), "size": size, "isDir": is_directory}
