"""The file endpoints: read, write, list, delete."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from spriggan.pilot.files.client import FileError, FilesHelper
from spriggan.pilot.process import Container
from spriggan.pilot.request import BadRequest, error_response, json_body
from spriggan.wire.spec import SpriteSpec

_STATUS = {
    "ENOENT": 404,
    "ENOTDIR": 400,
    "EISDIR": 400,
    "EINVAL": 400,
    "ELOOP": 400,
    "ENAMETOOLONG": 400,
    "EACCES": 403,
    "EPERM": 403,
    "EROFS": 403,
    "EEXIST": 409,
    "ENOTEMPTY": 409,
    "ENOSPC": 507,
    "EDQUOT": 507,
    "ENXIO": 400,
    "ENODEV": 400,
    "ETXTBSY": 409,
    "EBUSY": 409,
    "ECANCELED": 400,
    "ERANGE": 416,
}
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
MAX_PATH = 4096
MAX_PATTERN = 1024

Handler = Callable[[Request], Awaitable[Response]]


class NotRunning(Exception):
    """The sprite is down, or between two lives (503)."""


class Files:
    """The file endpoints of one sprite."""

    def __init__(self, helper: FilesHelper, container: Container, spec: SpriteSpec) -> None:
        self._helper = helper
        self._container = container
        self._spec = spec

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/fs/read", _refusing(self.read), methods=["GET"]),
            Route("/fs/write", _refusing(self.write), methods=["PUT"]),
            Route("/fs/list", _refusing(self.list), methods=["GET"]),
            Route("/fs/delete", _refusing(self.delete), methods=["DELETE"]),
        ]

    async def read(self, request: Request) -> Response:
        """The file's bytes; part of them where a Range is asked for."""
        query = dict(request.query_params)
        wanted = _range(request.headers.get("range"))
        opened = self._helper.reading(self._pid(), self._user(query), _path(query), wanted)
        # Entered by hand because the response outlives this call; the background task closes it.
        reply, body = await opened.__aenter__()
        headers = {"content-length": str(reply["length"]), "accept-ranges": "bytes"}
        status = 200
        if wanted is not None:
            status = 206
            end = reply["start"] + reply["length"] - 1
            headers["content-range"] = f"bytes {reply['start']}-{end}/{reply['size']}"

        async def close() -> None:
            await opened.__aexit__(None, None, None)

        return StreamingResponse(
            _closing(body, close),
            status,
            headers,
            media_type="application/octet-stream",
            background=BackgroundTask(close),
        )

    async def write(self, request: Request) -> Response:
        """Write a whole file; answered when it is safe on the disk."""
        query = dict(request.query_params)
        parents = query.get("mkdirParents", query.get("mkdir", "true")).lower() != "false"
        reply = await self._helper.write(
            self._pid(),
            self._user(query),
            _path(query),
            request.stream(),
            mode=_mode(query.get("mode")),
            parents=parents,
        )
        return JSONResponse(reply)

    async def list(self, request: Request) -> Response:
        """A directory's children, or the one entry of a file.

        ``sprites-py`` asks for a directory's own entry in the same way, and takes the first one
        for it; so it gets that first, with an empty name, which it skips when it iterates.
        """
        query = dict(request.query_params)
        recursive, pattern = _flag(query, "recursive"), query.get("pattern") or None
        if pattern is not None and len(pattern) > MAX_PATTERN:
            raise BadRequest("pattern is too long", f"a pattern has at most {MAX_PATTERN} characters")
        itself = request.headers.get("user-agent", "").startswith("sprites-py")
        reply = await self._helper.ask(
            self._pid(),
            self._user(query),
            "list",
            _path(query),
            recursive=recursive,
            pattern=pattern,
            itself=itself and not recursive and pattern is None,
        )
        # Names need not be UTF-8; in ASCII JSON each of their bytes has an escape.
        return Response(json.dumps(reply), media_type="application/json")

    async def delete(self, request: Request) -> Response:
        """Delete a file or directory, named in the query or in a JSON body."""
        query: dict[str, Any] = dict(request.query_params)
        if "path" not in query:
            query |= await json_body(request, 'send {"path": "/tmp/file"}')
        reply = await self._helper.ask(
            self._pid(), self._user(query), "delete", _path(query), recursive=_flag(query, "recursive")
        )
        return JSONResponse(reply)

    def _pid(self) -> int:
        if not self._container.running:
            raise NotRunning
        return self._container.init_pid

    def _user(self, query: dict[str, Any]) -> str:
        return "root" if _flag(query, "asRoot") else self._spec.user.name


def _refusing(handler: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except FileError as error:
            if error.code == "ERANGE":
                return Response(status_code=416, headers={"content-range": f"bytes */{error.message}"})
            body = {"error": error.message.lower(), "code": error.code, "path": error.path}
            return JSONResponse(body, _STATUS.get(error.code, 500))
        except BadRequest as error:
            return error_response(400, error.message, error.hint)
        except NotRunning:
            return error_response(503, "the sprite is not running", "try again in a moment")
        except ClientDisconnect:
            return Response(status_code=499)

    return handle


async def _closing(body: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
    """The bytes; and the file is closed also when the client goes before the end."""
    try:
        async for piece in body:
            yield piece
    finally:
        await close()


def _path(query: dict[str, Any]) -> str:
    path = query.get("path")
    if not isinstance(path, str) or not path:
        raise BadRequest("path is missing", "name an absolute path: path=/home/sprite/file")
    base = query.get("workingDir") or "/"
    if "\0" in path or not isinstance(base, str) or "\0" in base or max(len(path), len(base)) > MAX_PATH:
        raise BadRequest("path holds a NUL byte or is too long", "a path has at most 4096 bytes")
    if not base.startswith("/"):
        raise BadRequest(f"workingDir {base[:80]!r} is not an absolute path", "start it with /")
    return os.path.join(base, path)


def _mode(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise BadRequest(f"mode {text[:20]!r} is not an octal mode", "write it as 0644")
    return int(text, 8)


def _flag(query: dict[str, Any], name: str) -> bool:
    value = query.get(name, False)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", ""):
        return value.lower() in ("true", "1")
    raise BadRequest(f"{name} is neither true nor false", f"write {name}=true or {name}=false")


def _range(header: str | None) -> list[int | None] | None:
    """``[first, last]`` of a Range header; None for none, and for kinds that need not be honoured."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    first = int(match[1]) if match[1] else None
    last = int(match[2]) if match[2] else None
    if first is not None and last is not None and last < first:
        return None
    return [first, last]
