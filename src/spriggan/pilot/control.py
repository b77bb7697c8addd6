"""The control connection: one socket that carries one operation after another.

Text messages that begin with ``control:`` start operations and tell their end; everything else belongs
to the operation under way, framed as on a socket of its own. An older dialect, for files, has no
prefix, and a query string for its arguments. A third, for TCP connections, is refused: only the
client speaks it that cannot use this endpoint at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Protocol
from urllib.parse import parse_qsl

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from spriggan.pilot import exec as execs
from spriggan.pilot.exec import Exec, NoSuchSession
from spriggan.pilot.files.calls import Calls
from spriggan.pilot.files.client import FileError, NotRunning
from spriggan.pilot.process import ExecError
from spriggan.pilot.relay import Relay
from spriggan.pilot.request import BadRequest, error_response, flag, from_json, parse
from spriggan.wire.spec import SpriteSpec

PREFIX = "control:"
NO_PROXY = json.dumps(
    {
        "status": "failed",
        "error": "there are no TCP connections over a control connection",
        "hint": "open a socket for each, at /proxy",
    }
)
# A file is one message in this dialect.
MAX_FILE = 8 << 20
# Its reader of this connection and that of the operation take each other's messages, so that it hangs
# more often than not; without the endpoint it uses sockets of their own.
RACING_AGENT = "sprites-go-sdk/"

Message = dict[str, Any]


def _object(text: str) -> Message:
    """A message in JSON; an empty one for what is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


class Operation(Protocol):
    """What runs on a control connection."""

    async def take(self, message: Message) -> None:
        """Take what the client sent for it."""

    async def leave(self) -> None:
        """The client is gone, or wants something else."""


class Control:
    """The endpoint."""

    def __init__(self, commands: Exec, files: Calls, spec: SpriteSpec) -> None:
        self._commands = commands
        self._files = files
        self._spec = spec

    def routes(self) -> list[BaseRoute]:
        return [WebSocketRoute("/control", self.socket)]

    async def socket(self, websocket: WebSocket) -> None:
        """Serve operations until the client goes."""
        if websocket.headers.get("user-agent", "").startswith(RACING_AGENT):
            hint = "use a socket for each operation: /exec, /proxy, /fs"
            refusal = error_response(404, "this client cannot use a control connection", hint)
            await websocket.send_denial_response(refusal)
            return
        await websocket.accept(headers=execs.HEADERS)
        await _Connection(websocket, self._commands, self._files, self._spec).serve()


class _Connection:
    def __init__(self, websocket: WebSocket, commands: Exec, files: Calls, spec: SpriteSpec) -> None:
        self._websocket = websocket
        self._commands = commands
        self._files = files
        self._spec = spec
        self._operation: Operation | None = None

    async def serve(self) -> None:
        try:
            while (message := dict(await self._websocket.receive()))["type"] != "websocket.disconnect":
                await self._take(message)
        except WebSocketDisconnect:
            return
        finally:
            await self._leave()

    async def _take(self, message: Message) -> None:
        text = message.get("text")
        if text is not None and text.startswith(PREFIX):
            envelope = _object(text.removeprefix(PREFIX))
            if envelope.get("type") == "op.start":
                await self._leave()
                await self._start(envelope)
        elif text is not None and (envelope := _object(text)).get("type") == "op.start":
            await self._leave()
            self._operation = _FileOperation(self._websocket, self._files, envelope)
        elif text is not None and envelope.get("type") == "start":
            await self._websocket.send_text(NO_PROXY)
        elif self._operation is not None:
            # What comes when there is none is the rest of one that has ended.
            await self._operation.take(message)

    async def _leave(self) -> None:
        """Leave the operation under way: a client that starts another has given up on it."""
        operation, self._operation = self._operation, None
        if operation is not None:
            await operation.leave()

    async def _start(self, envelope: Message) -> None:
        try:
            if envelope.get("op") != "exec":
                raise BadRequest(f"there is no operation {str(envelope.get('op'))[:40]!r}", "exec is there")
            query = from_json(envelope.get("args", {}))
            if (session_id := query.get("id")) is not None:
                session, takes_input = self._commands.find(session_id), flag(query, "stdin", default=True)
            else:
                request = parse(query, self._spec)
                session, takes_input = await self._commands.start(request), request.stdin
        except (BadRequest, NoSuchSession) as error:
            await self._error(error.message, error.hint)
        except ExecError as error:
            await self._commands.fail(self._websocket, request, error)
            await self._complete(error.exit_code)
        else:
            owner = session_id is None
            attached = ExitStack()
            attachment = attached.enter_context(session.attached(owner=owner))
            talk = Relay(
                self._websocket,
                session,
                attachment,
                ports=self._commands.ports,
                owner=owner,
                takes_input=takes_input,
            )
            self._operation = _Command(talk, attached, self._complete)

    async def _complete(self, code: int) -> None:
        self._operation = None
        await self._send("op.complete", exitCode=code)

    async def _error(self, error: str, hint: str) -> None:
        await self._send("op.error", error=error, hint=hint)

    async def _send(self, kind: str, **args: object) -> None:
        await self._websocket.send_text(PREFIX + json.dumps({"type": kind, "args": args}))


class _Command:
    """A session, started or attached to."""

    def __init__(self, talk: Relay, attached: ExitStack, complete: Callable[[int], Awaitable[None]]) -> None:
        self._relay = talk
        self._attached = attached
        self._complete = complete
        self._said_all = False
        self._task = asyncio.create_task(self._run())

    async def take(self, message: Message) -> None:
        await self._relay.take(message)

    async def leave(self) -> None:
        if not self._said_all:  # else it ends by itself, and its end is still to be told
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._attached.close()  # also of a task that never ran

    async def _run(self) -> None:
        try:
            await self._relay.greet()
            code = await self._relay.send_output()
            self._said_all = True
        finally:
            self._attached.close()
        await self._complete(code)


class _FileOperation:
    """One file operation in the dialect without a prefix: a reply in JSON, bytes in one message, and its end."""

    def __init__(self, websocket: WebSocket, files: Calls, envelope: Message) -> None:
        self._websocket = websocket
        self._files = files
        self._name = str(envelope.get("op", ""))
        self._uploaded: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        args = envelope.get("args")
        self._query: dict[str, Any] = (
            dict(parse_qsl(args, keep_blank_values=True)) if isinstance(args, str) else {}
        )
        self._task = asyncio.create_task(self._run())

    async def take(self, message: Message) -> None:
        if message.get("bytes") is not None and not self._uploaded.done():
            self._uploaded.set_result(message["bytes"])

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._perform()
        except FileError as error:
            await self._fail(error.body())
        except BadRequest as error:
            await self._fail({"error": error.message, "code": "EINVAL", "hint": error.hint})
        except NotRunning:
            await self._fail({"error": "the sprite is not running", "code": "EIO"})
        else:
            await self._say({"type": "op.complete"})

    async def _perform(self) -> None:
        calls = {
            "fs.list": self._files.list,
            "fs.delete": self._files.delete,
            "fs.rename": self._files.rename,
            "fs.copy": self._files.copy,
            "fs.chmod": self._files.chmod,
            "fs.chown": self._files.chown,
        }
        if self._name == "fs.read":
            await self._read()
        elif self._name == "fs.write":
            await self._say(await self._files.write(self._query, _once(self._uploaded)))
        elif (call := calls.get(self._name)) is not None:
            await self._say(await call(self._query))
        else:
            raise BadRequest(f"there is no operation {self._name[:40]!r}", f"there are {', '.join(calls)}")

    async def _read(self) -> None:
        async with self._files.reading(self._query, self._range()) as (reply, body):
            data = bytearray()
            async for piece in body:
                data += piece
                if len(data) > MAX_FILE:
                    raise FileError("EFBIG", "file too large for one message", str(self._query["path"]))
            await self._say({"path": reply["path"], "size": len(data)})
            await self._websocket.send_bytes(bytes(data))

    def _range(self) -> list[int | None] | None:
        """First and last byte, of the arguments ``start`` and ``end``, the second of which is beyond it."""
        numbers = []
        for name in ("start", "end"):
            text = str(self._query.get(name) or "")
            if text and not (text.isascii() and text.isdigit() and len(text) <= 18):
                raise BadRequest(f"{name} is not a number of bytes", f"write {name}=4096")
            numbers.append(int(text) if text else None)
        start, end = numbers
        if start is None and end is None:
            return None
        if end is not None and end <= (start or 0):
            raise BadRequest("end is not after start", "the byte at end is not read any more")
        return [start or 0, None if end is None else end - 1]

    async def _fail(self, body: Message) -> None:
        await self._say(body)
        await self._say({"type": "op.error", "args": {"error": body["error"]}})

    async def _say(self, body: Message) -> None:
        await self._websocket.send_text(json.dumps(body))


async def _once(uploaded: asyncio.Future[bytes]) -> AsyncIterator[bytes]:
    yield await uploaded
