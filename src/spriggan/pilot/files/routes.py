"""The file endpoints: read, write, list, delete, rename, copy, chmod, chown, watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from spriggan.pilot.files.calls import Calls, subscription
from spriggan.pilot.files.client import FileError, NotRunning
from spriggan.pilot.request import BadRequest, error_response, json_body
from spriggan.pilot.together import until_one_ends

_STATUS = {
    "ENOENT": 404,
    "ENOTDIR": 400,
    "EISDIR": 400,
    "EINVAL": 400,
    "ELOOP": 400,
    "ENAMETOOLONG": 400,
    "EFBIG": 400,
    "EACCES": 403,
    "EPERM": 403,
    "EROFS": 403,
    "EEXIST": 409,
    "ENOTEMPTY": 409,
    "EXDEV": 409,
    "ENOSPC": 507,
    "EDQUOT": 507,
    "ENXIO": 400,
    "ENODEV": 400,
    "EOPNOTSUPP": 400,
    "ETXTBSY": 409,
    "EBUSY": 409,
    "ECANCELED": 400,
    "ERANGE": 416,
    "EAGAIN": 409,
    "ETIMEDOUT": 504,
    "EIO": 500,
    "ENOMEM": 503,
    "EMFILE": 503,
    "ENFILE": 503,
}
_OTHER_STATUS = 400  # it is about that file
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")

Handler = Callable[[Request], Awaitable[Response]]
Call = Callable[[dict[str, Any]], Coroutine[Any, Any, dict[str, Any]]]
T = TypeVar("T")


class Files:
    """The file endpoints of one sprite."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def routes(self) -> list[BaseRoute]:
        calls = self._calls
        move = {"source": "/home/sprite/a", "dest": "/home/sprite/b"}
        return [
            Route("/fs/read", _refusing(self.read), methods=["GET"]),
            Route("/fs/write", _refusing(self.write), methods=["PUT"]),
            Route("/fs/list", _refusing(self.list), methods=["GET"]),
            Route("/fs/delete", _refusing(self.delete), methods=["DELETE"]),
            Route("/fs/rename", _post(calls.rename, move), methods=["POST"]),
            Route("/fs/copy", _post(calls.copy, move), methods=["POST"]),
            Route(
                "/fs/chmod", _post(calls.chmod, {"path": "/home/sprite/a", "mode": "0755"}), methods=["POST"]
            ),
            Route(
                "/fs/chown", _post(calls.chown, {"path": "/home/sprite/a", "uid": "sprite"}), methods=["POST"]
            ),
            WebSocketRoute("/fs/watch", self.watch),
        ]

    async def read(self, request: Request) -> Response:
        """The file's bytes; part of them where a Range is asked for."""
        wanted = _range(request.headers.get("range"))
        stack = AsyncExitStack()
        opened = stack.enter_async_context(self._calls.reading(dict(request.query_params), wanted))
        reply, body = await _while_there(request, opened)
        headers = {}
        status = 200
        if reply["length"] is not None:
            headers = {"content-length": str(reply["length"]), "accept-ranges": "bytes"}
            if wanted is not None:
                status = 206
                end = reply["start"] + reply["length"] - 1
                headers["content-range"] = f"bytes {reply['start']}-{end}/{reply['size']}"

        return _File(body, stack, status, headers)

    async def write(self, request: Request) -> Response:
        """Write a whole file; answered when it is safe on the disk."""
        whole = asyncio.Event()
        work = self._calls.write(dict(request.query_params), _noticing_the_end(request, whole))
        return _json(await _while_there(request, work, after=whole))

    async def list(self, request: Request) -> Response:
        """A directory's children, or the one entry of a file.

        ``sprites-py`` asks for a directory's own entry in the same way, and takes the first one
        for it; so it gets that first, with an empty name, which it skips when it iterates.
        """
        itself = request.headers.get("user-agent", "").startswith("sprites-py")
        work = self._calls.list(dict(request.query_params), itself=itself)
        return _json(await _while_there(request, work))

    async def delete(self, request: Request) -> Response:
        """Delete a file or directory, named in the query or in a JSON body."""
        query: dict[str, Any] = dict(request.query_params)
        if "path" not in query:
            query |= await json_body(request, 'send {"path": "/tmp/file"}')
        return _json(await _while_there(request, self._calls.delete(query)))

    async def watch(self, websocket: WebSocket) -> None:
        """Tell of changes until the client goes."""
        try:
            async with self._calls.watching() as (reader, writer):
                await websocket.accept()
                await until_one_ends(_subscribe(websocket, writer), _tell(reader, websocket))
        except FileError as error:
            await websocket.send_denial_response(_file_error(error))
        except NotRunning:
            await websocket.send_denial_response(_not_running())


async def _subscribe(websocket: WebSocket, writer: asyncio.StreamWriter) -> None:
    """Hand on what the client wants watched, until it goes."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        try:
            line = subscription(message.get("text") or (message.get("bytes") or b"").decode(errors="replace"))
        except BadRequest as error:
            said = {
                "type": "error",
                "message": f"{error.message}; {error.hint}",
                "code": "EINVAL",
                "path": "",
            }
            await websocket.send_text(json.dumps(said))
        else:
            if line is not None:
                writer.write(line)
                await writer.drain()


async def _tell(reader: asyncio.StreamReader, websocket: WebSocket) -> None:
    """Hand on what happens, no faster than the client takes it."""
    while line := await reader.readline():
        await websocket.send_text(line.decode().rstrip("\n"))
    await websocket.close(1001, "the sprite was stopped")


def _post(call: Call, example: dict[str, str]) -> Handler:
    """An endpoint whose parameters come in a JSON body."""

    async def handle(request: Request) -> Response:
        body = await json_body(request, f"send {json.dumps(example)}")
        return _json(await _while_there(request, call(body)))

    return _refusing(handle)


def _refusing(handler: Handler) -> Handler:
    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except FileError as error:
            return _file_error(error)
        except BadRequest as error:
            body = {"error": error.message, "code": "EINVAL", "message": error.message, "hint": error.hint}
            return JSONResponse(body, 400)
        except NotRunning:
            return _not_running()
        except ClientDisconnect:
            return Response(status_code=499)

    return handle


def _json(reply: dict[str, Any]) -> Response:
    """Names need not be UTF-8; in ASCII JSON each of their bytes has an escape."""
    return Response(json.dumps(reply), media_type="application/json")


def _file_error(error: FileError) -> Response:
    if error.code == "ERANGE":
        size = error.message
        said = f"the file has {size} bytes only"
        body = {**error.body(), "error": said, "message": said, "hint": "ask for a part of those"}
        return JSONResponse(body, 416, headers={"content-range": f"bytes */{size}"})
    return Response(
        json.dumps(error.body()), _STATUS.get(error.code, _OTHER_STATUS), media_type="application/json"
    )


def _not_running() -> JSONResponse:
    return error_response(503, "the sprite is not running", "try again in a moment", {"retry-after": "1"})


class _File(Response):
    """A file's bytes, for as long as the client is there. ``stack`` holds what is to be closed then.

    Starlette's own streaming response notices that a client is gone only when it has something to send.
    """

    media_type = "application/octet-stream"

    def __init__(
        self, body: AsyncIterator[bytes], stack: AsyncExitStack, status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._body = body
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            with contextlib.suppress(ClientDisconnect):
                await _while_there(Request(scope, receive), self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for piece in self._body:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _while_there(
    request: Request, work: Coroutine[Any, Any, T], *, after: asyncio.Event | None = None
) -> T:
    """Do ``work``, and give it up if the client goes: what hangs would otherwise hang for ever.

    ``after``: set when the body has been read, which somebody else does. Raises ``ClientDisconnect``.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_gone(request, after))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(leaving, working, return_exceptions=True)


async def _gone(request: Request, after: asyncio.Event | None) -> None:
    if after is not None:
        await after.wait()
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _noticing_the_end(request: Request, end: asyncio.Event) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        yield piece
    end.set()


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
