"""Exec: commands over a WebSocket or in one HTTP request, and the list of sessions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from spriggan.pilot import killing, relay
from spriggan.pilot.ports import Ports
from spriggan.pilot.process import ExecError
from spriggan.pilot.relay import Relay
from spriggan.pilot.request import BadRequest, ExecRequest, error_response, flag, parse
from spriggan.pilot.sessions import KEPT_BYTES, KEPT_SESSIONS, Session, Sessions
from spriggan.pilot.together import until_one_ends
from spriggan.wire.frames import Stream, exit_frame, frame
from spriggan.wire.spec import SpriteSpec

HEADERS = [(b"x-sprite-capabilities", b"signal")]
CLIENT_CHECK_S = 2.0
IDLE_FRAME_S = 20.0  # HTTP clients give up on a body that stands still


class NoSuchSession(Exception):
    """There is no session of that name, or no longer (404)."""

    def __init__(self, session_id: str, *, ended: bool) -> None:
        self.message = f"no session {session_id[:40]}"
        if ended:
            self.message = f"session {session_id[:40]} has ended, and its output is not kept any more"
        self.hint = (
            f"list the sessions that run; of those that ended, the last {KEPT_SESSIONS} are kept for an hour, "
            f"and of their output the last {KEPT_BYTES >> 20} MiB"
        )
        super().__init__(self.message)


class Exec:
    """The exec endpoints of one sprite. Clients are told of its ``ports`` while their commands run."""

    def __init__(self, sessions: Sessions, spec: SpriteSpec, ports: Ports) -> None:
        self._sessions = sessions
        self._spec = spec
        self.ports = ports

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
        query = websocket.query_params
        session_id = websocket.path_params.get("id") or query.get("id")
        try:
            if session_id is not None:
                await self._attach(websocket, session_id)
            else:
                await self._run(websocket, parse(query, self._spec))
        except NoSuchSession as error:
            await websocket.send_denial_response(error_response(404, error.message, error.hint))
        except BadRequest as error:
            await websocket.send_denial_response(error_response(400, error.message, error.hint))

    async def post(self, request: Request) -> Response:
        """Run a command with the body as its input; answer with one frame per chunk."""
        try:
            wanted = parse(request.query_params, self._spec)
            if wanted.tty:
                raise BadRequest(
                    "a terminal needs a WebSocket", "leave tty out, or open /exec as a WebSocket"
                )
            session = await self.start(wanted)
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
        try:
            session = self.find(request.path_params["id"])
            if session.exit_code is not None:
                words = f"session {session.id} has ended with {session.exit_code}"
                return error_response(410, words, "there is nothing left to end")
            number, timeout = await killing.parameters(request)
        except NoSuchSession as error:
            return error_response(404, error.message, error.hint)
        except BadRequest as error:
            return error_response(400, error.message, error.hint)
        lines = killing.kill(session, number, timeout)
        return StreamingResponse(lines, media_type="application/x-ndjson")

    def find(self, session_id: str) -> Session:
        """A session that runs or ended lately. Raises ``NoSuchSession``."""
        session = self._sessions.get(session_id)
        if session is None:
            raise NoSuchSession(session_id, ended=self._sessions.was(session_id))
        return session

    async def start(self, request: ExecRequest) -> Session:
        """Run a command. Raises ``ExecError``."""
        try:
            session = await self._sessions.start(
                request.process, tty=request.tty, rows=request.rows, cols=request.cols, linger=request.linger
            )
        except OSError as error:
            raise ExecError(f"cannot run {request.process.argv[0]}: {error}", 1) from error
        if not request.stdin:
            session.close_input()
        return session

    async def fail(self, line: relay.Line, request: ExecRequest, error: ExecError) -> None:
        """Tell of a command that could not be started, and its exit code."""
        command = " ".join(request.process.argv)
        await relay.send_failure(
            line, command=command, rows=request.rows, cols=request.cols, tty=request.tty, words=error.message
        )
        await relay.send_exit(line, error.exit_code, tty=request.tty)

    async def _run(self, websocket: WebSocket, request: ExecRequest) -> None:
        await self._sessions.can_start()
        # First the connection, as clients are less patient with that than with a command.
        await websocket.accept(headers=HEADERS)
        try:
            session = await self.start(request)
        except ExecError as error:
            await self.fail(websocket, request, error)
            await websocket.close(relay.close_code(error.exit_code, tty=request.tty))
            return
        with session.attached(owner=True) as attachment:
            await _converse(
                websocket,
                Relay(
                    websocket, session, attachment, ports=self.ports, owner=True, takes_input=request.stdin
                ),
            )

    async def _attach(self, websocket: WebSocket, session_id: str) -> None:
        session, takes_input = self.find(session_id), flag(websocket.query_params, "stdin", default=True)
        watches = websocket.headers.get("user-agent", "").startswith("sprites-py")
        with session.attached() as attachment:
            await websocket.accept(headers=HEADERS)
            talk = Relay(
                websocket,
                session,
                attachment,
                ports=self.ports,
                owner=False,
                takes_input=takes_input,
                watches=watches,
            )
            await _converse(websocket, talk)

    async def _stream(self, request: Request, session: Session, stdin: bool) -> AsyncIterator[bytes]:
        feeding = asyncio.create_task(_feed(request, session, stdin))
        idle = 0.0
        try:
            with session.attached(owner=True) as attachment:
                async for batch in attachment.batches(CLIENT_CHECK_S):
                    idle = 0.0 if batch else idle + CLIENT_CHECK_S
                    if idle >= IDLE_FRAME_S:
                        idle = 0.0
                        yield frame(Stream.STDOUT, b"")
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


async def _converse(websocket: WebSocket, talk: Relay) -> None:
    """Carry output and input until the session ends or the client goes."""
    await talk.greet()
    await until_one_ends(_receive(websocket, talk), _send(websocket, talk))


async def _send(websocket: WebSocket, talk: Relay) -> None:
    code = await talk.send_output()
    await websocket.close(relay.close_code(code, tty=talk.tty))


async def _receive(websocket: WebSocket, talk: Relay) -> None:
    """Take the client's messages until it goes."""
    while (message := await websocket.receive())["type"] != "websocket.disconnect":
        await talk.take(dict(message))


async def _feed(request: Request, session: Session, stdin: bool) -> None:
    """Give the request's body to the command; returns when the client is gone."""
    with contextlib.suppress(ClientDisconnect):
        async for chunk in request.stream():
            if stdin and chunk:
                await session.write(chunk)
        session.close_input()
        while (await request.receive())["type"] != "http.disconnect":
            continue


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
