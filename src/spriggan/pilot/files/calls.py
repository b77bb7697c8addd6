"""File operations as requests name them: parameters checked, then done in the sprite.

The parameters are those of a query string, of a JSON body or of an operation on a control
connection, so a flag may be a boolean or a word.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from spriggan.pilot.files.client import FilesHelper, NotRunning
from spriggan.pilot.process import Container
from spriggan.pilot.request import BadRequest
from spriggan.wire.spec import SpriteSpec

MAX_PATH = 4096
MAX_PATTERN = 1024
MAX_WATCHED = 256  # paths in one message

Query = Mapping[str, Any]
Reading = AbstractAsyncContextManager[tuple[dict[str, Any], AsyncIterator[bytes]]]


class Calls:
    """The file operations of one sprite. All raise ``BadRequest``, ``FileError`` and ``NotRunning``."""

    def __init__(self, helper: FilesHelper, container: Container, spec: SpriteSpec) -> None:
        self._helper = helper
        self._container = container
        self._spec = spec

    def reading(self, query: Query, wanted: list[int | None] | None) -> Reading:
        """What is known of a file, and its bytes from ``wanted[0]`` to ``wanted[1]``."""
        return self._helper.reading(self._pid(), self._user(query), path_of(query), wanted)

    async def write(self, query: Query, body: AsyncIterator[bytes]) -> dict[str, Any]:
        """Write a whole file; answered when it is safe on the disk."""
        name = "mkdirParents" if "mkdirParents" in query else "mkdir"
        return await self._helper.write(
            self._pid(),
            self._user(query),
            path_of(query),
            body,
            mode=_mode(query.get("mode")),
            parents=_flag(query, name, default=True),
        )

    async def list(self, query: Query, *, itself: bool = False) -> dict[str, Any]:
        """A directory's children, or the one entry of a file. ``itself``: the directory's own entry first."""
        recursive, pattern = _flag(query, "recursive"), query.get("pattern") or None
        if pattern is not None and (not isinstance(pattern, str) or len(pattern) > MAX_PATTERN):
            raise BadRequest("pattern is too long", f"a pattern has at most {MAX_PATTERN} characters")
        itself = itself and not recursive and pattern is None
        return await self._ask("list", query, recursive=recursive, pattern=pattern, itself=itself)

    async def delete(self, query: Query) -> dict[str, Any]:
        return await self._ask("delete", query, recursive=_flag(query, "recursive"))

    async def rename(self, query: Query) -> dict[str, Any]:
        return await self._ask("rename", query, "source", dest=path_of(query, "dest"))

    async def copy(self, query: Query) -> dict[str, Any]:
        recursive, preserve = _flag(query, "recursive"), _flag(query, "preserveAttrs")
        dest = path_of(query, "dest")
        return await self._ask("copy", query, "source", dest=dest, recursive=recursive, preserve=preserve)

    async def chmod(self, query: Query) -> dict[str, Any]:
        mode = _mode(query.get("mode"))
        if mode is None:
            raise BadRequest("mode is missing", "write it as 0755")
        return await self._ask("chmod", query, mode=mode, recursive=_flag(query, "recursive"))

    async def chown(self, query: Query) -> dict[str, Any]:
        uid, gid = _id(query, "uid"), _id(query, "gid")
        if uid is None and gid is None:
            raise BadRequest("uid and gid are missing", "give at least one of them, as a number or a name")
        return await self._ask("chown", query, uid=uid, gid=gid, recursive=_flag(query, "recursive"))

    def watching(self) -> AbstractAsyncContextManager[Any]:
        """A conversation with a watcher; see ``watching``."""
        return self._helper.watching(self._pid(), self._spec.user.name)

    async def _ask(self, op: str, query: Query, name: str = "path", **arguments: object) -> dict[str, Any]:
        return await self._helper.ask(self._pid(), self._user(query), op, path_of(query, name), **arguments)

    def _pid(self) -> int:
        if not self._container.running:
            raise NotRunning
        return self._container.init_pid

    def _user(self, query: Query) -> str:
        return "root" if _flag(query, "asRoot") else self._spec.user.name


def path_of(query: Query, name: str = "path") -> str:
    """The path in ``query[name]``, from ``workingDir`` on where it is relative. Raises ``BadRequest``."""
    return absolute(query.get(name), query.get("workingDir"), name)


def absolute(path: object, base: object, name: str = "path") -> str:
    """``path`` from ``base`` on. Raises ``BadRequest``."""
    if not isinstance(path, str) or not path:
        raise BadRequest(f"{name} is missing", f"name an absolute path: {name}=/home/sprite/file")
    base = base or "/"
    if not isinstance(base, str) or not base.startswith("/"):
        raise BadRequest(f"workingDir {str(base)[:80]!r} is not an absolute path", "start it with /")
    whole = os.path.join(base, path)
    if "\0" in whole or len(whole.encode(errors="surrogatepass")) > MAX_PATH:
        raise BadRequest(f"{name} holds a NUL byte or is too long", "a path has at most 4096 bytes")
    return whole


def subscription(text: str) -> bytes | None:
    """What a client's message asks of its watcher, as a line for that; None for what is nothing of the kind.

    Raises ``BadRequest``.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the message is not JSON", 'send {"type": "subscribe", "paths": ["/"]}') from error
    kind = message.get("type") if isinstance(message, dict) else None
    if kind not in ("subscribe", "unsubscribe"):
        return None
    paths = message.get("paths")
    if not isinstance(paths, list) or not 0 < len(paths) <= MAX_WATCHED:
        raise BadRequest("paths is not a list of paths", f'send {{"paths": ["/tmp"]}}, {MAX_WATCHED} at most')
    found = [absolute(path, message.get("workingDir"), "paths") for path in paths]
    if kind == "unsubscribe":
        return json.dumps({"unwatch": found}).encode() + b"\n"
    return json.dumps({"watch": found, "recursive": _flag(message, "recursive")}).encode() + b"\n"


def _mode(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3,4}", value, re.ASCII):
        raise BadRequest(f"mode {str(value)[:20]!r} is not an octal mode", 'write it as "0644"')
    return int(value, 8)


def _flag(query: Query, name: str, *, default: bool = False) -> bool:
    value = query.get(name)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", ""):
        return value.lower() in ("true", "1")
    raise BadRequest(f"{name} is neither true nor false", f"write {name}=true or {name}=false")


def _id(query: Query, name: str) -> int | str | None:
    value = query.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and 0 < len(value) <= 256 and not set(value) & set("\0:\n"):
        return value
    raise BadRequest(f"{name} is neither a number nor a name", f"write {name}=1001 or {name}=sprite")
