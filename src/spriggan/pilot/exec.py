"""Exec: commands over a WebSocket or in one HTTP request, and the list of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from spriggan.pilot.process import ExecError
from spriggan.pilot.request import BadRequest, ExecRequest, error_response, json_body, parse
from spriggan.pilot.sessions import Attachment, Session, Sessions
from spriggan.pilot.spool import Batch
from spriggan.wire import messages
from spriggan.wire.durations import parse_duration
from spriggan.wire.frames import Control, Input, InputEnd, Stream, exit_frame, frame, parse_input
from spriggan.wire.spec import SpriteSpec

KEEPALIVE_S = 20.0  # one official client gives up after 45 s without a message
HEADERS = [(b"x-sprite-capabilities", b"signal")]
KILL_TIMEOUT_S = 10.0
CLIENT_CHECK_S = 2.0


class Exec:
    """The exec endpoints of one sprite."""

    def __init__(self, sessions: Sessions, spec: SpriteSpec) -> None:
        self._sessions = sessions
        self._spec = spec

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute("/exec", self.socket),
            WebSocketRoute("/exec/{id}", self.socket),
            Route("/exec", self.list, methods=["GET"]),
            Route("/exec", self.post, methods=["POST"]),
            Route("/exec/{id}/kill", self.kill, methods=["POST"]),
        ]

    async def socket(self, websocket: WebSocket) -> None:
        """Start a command, or attach to a session by path or ``id`` parameter."""
        session_id = websocket.path_params.get("id") or websocket.query_params.get("id")
        if session_id is not None:
            session = self._sessions.get(session_id)
            if session is None:
                hint = "list the sessions that run; output of ended ones is kept for an hour"
                await websocket.send_denial_response(
                    error_response(404, f"no session {session_id[:40]}", hint)
                )
                return
            await self._serve(websocket, session, owner=False)
            return
        try:
            request = parse(websocket.query_params, self._spec)
            session = await self._start(request)
        except BadRequest as error:
            await websocket.send_denial_response(error_response(400, error.message, error.hint))
        except ExecError as error:
            await _fail(websocket, request, error)
        else:
            if not request.stdin:
                session.close_input()
            await self._serve(websocket, session, owner=True)

    async def post(self, request: Request) -> Response:
        """Run a command with the body as its input; answer with one frame per chunk."""
        try:
            wanted = parse(request.query_params, self._spec)
            if wanted.tty:
                raise BadRequest(
                    "a terminal needs a WebSocket", "leave tty out, or open /exec as a WebSocket"
                )
            session = await self._start(wanted)
        except BadRequest as error:
            return error_response(400, error.message, error.hint)
        except ExecError as error:
            frames = [frame(Stream.STDERR, f"{error.message}\n".encode()), exit_frame(error.exit_code)]
            return _Frames(_each(frames))
        return _Frames(self._stream(request, session, wanted.stdin))

    async def list(self, request: Request) -> Response:
        sessions = [_describe(session) for session in self._sessions.running()]
        return JSONResponse({"count": len(sessions), "sessions": sessions})

    async def kill(self, request: Request) -> Response:
        """Signal a session, and kill it if it has not ended in time. Answers with NDJSON."""
        session = self._sessions.get(request.path_params["id"])
        if session is None:
            return error_response(
                404, f"no session {request.path_params['id'][:40]}", "list the sessions that run"
            )
        if session.exit_code is not None:
            return error_response(410, f"session {session.id} has ended with {session.exit_code}")
        try:
            number, timeout = await _kill_parameters(request)
        except BadRequest as error:
            return error_response(400, error.message, error.hint)
        return StreamingResponse(_kill(session, number, timeout), media_type="application/x-ndjson")

    async def _start(self, request: ExecRequest) -> Session:
        try:
            return await self._sessions.start(
                request.process, tty=request.tty, rows=request.rows, cols=request.cols, linger=request.linger
            )
        except OSError as error:
            raise ExecError(f"cannot run {request.process.argv[0]}: {error}", 1) from error

    async def _serve(self, websocket: WebSocket, session: Session, *, owner: bool) -> None:
        """Carry output and input until the session ends or the client goes."""
        with session.attached(owner=owner) as attachment:
            await websocket.accept(headers=HEADERS)
            await websocket.send_text(_session_info(session, owner=attachment.owner))
            receiving = asyncio.create_task(_receive(websocket, session, may_end=owner))
            sending = asyncio.create_task(_send(websocket, session, attachment))
            try:
                await asyncio.wait((receiving, sending), return_when=asyncio.FIRST_COMPLETED)
            finally:
                receiving.cancel()
                sending.cancel()
                await asyncio.gather(receiving, sending, return_exceptions=True)

    async def _stream(self, request: Request, session: Session, stdin: bool) -> AsyncIterator[bytes]:
        feeding = asyncio.create_task(_feed(request, session, stdin))
        try:
            with session.attached(owner=True) as attachment:
                async for batch in attachment.batches(CLIENT_CHECK_S):
                    for stream, payload in batch.records if batch else []:
                        yield frame(stream, payload)
                    if feeding.done():
                        return  # the client is gone
                yield exit_frame(session.exit_code or 0)
        finally:
            feeding.cancel()


class _Frames(Response):
    """One chunk a frame. Starlette's own streaming response would read the request's body itself,
    to notice a client that goes.
    """

    media_type = "application/octet-stream"

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for each in self._frames:
            await send({"type": "http.response.body", "body": each, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _each(frames: list[bytes]) -> AsyncIterator[bytes]:
    for each in frames:
        yield each


async def _fail(websocket: WebSocket, request: ExecRequest, error: ExecError) -> None:
    """Tell of a command that could not be started as a shell would: words on stderr and a code."""
    await websocket.accept(headers=HEADERS)
    command = " ".join(request.process.argv)
    await websocket.send_text(
        messages.session_info(
            "0",
            command=command,
            created=0,
            rows=request.rows,
            cols=request.cols,
            is_owner=True,
            tty=request.tty,
        )
    )
    text = f"{error.message}\n".encode()
    await websocket.send_bytes(text.replace(b"\n", b"\r\n") if request.tty else frame(Stream.STDERR, text))
    await _send_exit(websocket, error.exit_code, tty=request.tty)


async def _send(websocket: WebSocket, session: Session, attachment: Attachment) -> None:
    async for batch in attachment.batches(KEEPALIVE_S):
        if batch is None:
            await websocket.send_text(messages.KEEPALIVE)
            continue
        await _send_batch(websocket, session, batch)
    await _send_exit(websocket, session.exit_code or 0, tty=session.tty)


async def _send_batch(websocket: WebSocket, session: Session, batch: Batch) -> None:
    if batch.lost:
        words = f"{batch.lost} bytes of older output are not kept any more"
        await websocket.send_text(messages.truncated(batch.lost, words))
        notice = f"[spriggan: {words}]\n".encode()
        await websocket.send_bytes(notice if session.tty else frame(Stream.STDERR, notice))
    for stream, payload in batch.records:
        await websocket.send_bytes(payload if session.tty else frame(stream, payload))


async def _send_exit(websocket: WebSocket, code: int, *, tty: bool) -> None:
    if tty:
        # One official client takes the code from here, another only from the close code.
        await websocket.send_text(messages.exit_message(code))
        await websocket.close(1000 if code == 0 else 4000 + code)
        return
    await websocket.send_bytes(exit_frame(code))
    await websocket.close(1000)


async def _receive(websocket: WebSocket, session: Session, *, may_end: bool) -> None:
    """Take the client's messages until it goes.

    ``may_end``: the end of this client's input is the end of the command's. Of one that attached that
    is true only after it has sent some: the official Python client ends its input when it only watches.
    """
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if (text := message.get("text")) is not None:
            _control(session, text)
        elif (data := message.get("bytes")) is not None:
            may_end = await _input(session, data, may_end=may_end)


async def _input(session: Session, data: bytes, *, may_end: bool) -> bool:
    """Take a binary message; return whether this client's end of input counts from now on."""
    if session.tty:
        if data.startswith(b'{"type"') and messages.parse_control(data.decode(errors="replace")):
            _control(session, data.decode(errors="replace"))
        else:
            await session.write(data)
        return may_end
    match parse_input(data):
        case Input(payload):
            await session.write(payload)
            return True
        case InputEnd():
            if may_end:
                session.close_input()
        case Control(text):
            _control(session, text)
    return may_end


def _control(session: Session, text: str) -> None:
    match messages.parse_control(text):
        case messages.Resize(rows, cols):
            session.resize(rows, cols)
        case messages.Signal(number):
            session.signal(number)
        case None:
            return


async def _feed(request: Request, session: Session, stdin: bool) -> None:
    """Give the request's body to the command; returns when the client is gone."""
    with contextlib.suppress(ClientDisconnect):
        async for chunk in request.stream():
            if stdin and chunk:
                await session.write(chunk)
        session.close_input()
        while (await request.receive())["type"] != "http.disconnect":
            continue


async def _kill_parameters(request: Request) -> tuple[int, float]:
    """Signal and timeout, from the query as two clients send them or the JSON body as a third does."""
    name: object = request.query_params.get("signal")
    timeout: object = request.query_params.get("timeout")
    data = await json_body(request, 'send {"signal": "SIGTERM", "timeout": 10}')
    name, timeout = data.get("signal", name), data.get("timeout", timeout)
    number = messages.signal_number(name if name is not None else "SIGTERM")
    if number is None:
        raise BadRequest(f"{str(name)[:40]!r} is not a signal", "use a name such as SIGTERM or HUP")
    return number, _seconds(timeout)


def _seconds(value: object) -> float:
    if value is None:
        return KILL_TIMEOUT_S
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 3600:
        return float(value)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            seconds = parse_duration(value if not value.isdigit() else f"{value}s")
            if 0 <= seconds <= 3600:
                return seconds
    raise BadRequest(f"timeout {str(value)[:40]!r} is not a duration up to an hour", "write timeout=10s")


async def _kill(session: Session, number: int, timeout: float) -> AsyncIterator[bytes]:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    if not session.signal(number):
        yield _line(type="error", message="the session has ended")
        return
    yield _line(type="signal", message=f"Sent {name} to process {session.pid}", signal=name, pid=session.pid)
    if timeout == 0:
        yield _line(type="complete", exit_code=session.exit_code or 0)
        return
    if await session.wait(timeout):
        yield _line(type="exited", message=f"Process {session.pid} exited")
    else:
        yield _line(type="timeout", message=f"Process {session.pid} still runs after {timeout:g} s")
        session.signal(signal.SIGKILL)
        await session.wait(KILL_TIMEOUT_S)
        yield _line(type="killed", message=f"Process {session.pid} was killed")
    yield _line(type="complete", exit_code=session.exit_code if session.exit_code is not None else -1)


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _session_info(session: Session, *, owner: bool) -> str:
    return messages.session_info(
        session.id,
        command=session.command,
        created=int(session.created),
        rows=session.rows,
        cols=session.cols,
        is_owner=owner,
        tty=session.tty,
    )


def _describe(session: Session) -> dict[str, object]:
    return {
        "id": session.id,
        "command": session.command,
        "workdir": session.process.cwd,
        "created": _timestamp(session.created),
        "last_activity": _timestamp(session.last_activity),
        "bytes_per_second": session.bytes_per_second,
        "is_active": bool(session.attachments),
        "tty": session.tty,
    }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
