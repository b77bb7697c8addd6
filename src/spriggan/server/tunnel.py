"""WebSockets: authenticated and resolved here, then the bytes go to the pilot and back untouched.

uvicorn gives a connection that asks for an upgrade to ``Tunnel``, with the request's head. The
head is checked and sent on to the pilot; from the pilot's 101 on, both directions are pipes.
Until then nothing the client sends is passed on, and a refusal ends the connection: a second
request in it would otherwise reach the pilot past every check.

What ends without a closing frame, because the sprite is stopped or the server is, gets one here. It
says why; and one official client throws where nobody can catch it when a connection just breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import h11
from uvicorn.config import Config
from uvicorn.server import ServerState

from spriggan.engine import Engine
from spriggan.errors import Broken, InvalidRequest, SprigganError
from spriggan.server import version
from spriggan.server.attention import Attention
from spriggan.server.auth import identify
from spriggan.server.errors import HeadTooLarge, NoSuchEndpoint, error_response, internal_error
from spriggan.server.forward import BROKEN_OFF, NOT_FORWARDED, Headers, made_request
from spriggan.server.gateway import Gateway, shown
from spriggan.server.link import READ_SIZE, Link
from spriggan.server.service import no_answer
from spriggan.server.websocket import SERVICE_RESTART, Frames, closing_frame

log = logging.getLogger(__name__)

Answer = tuple[h11.InformationalResponse | h11.Response, bytes]
"""The head and, of a refusal, the body."""

Asked = tuple[contextlib.AsyncExitStack, Link, Answer, bytes | None]
"""What keeps the sprite awake, the connection to its pilot, its answer, and what it sent after a 101."""

# A command line is in the URL; Linux takes 128 KiB for one argument, percent-encoding triples it.
MAX_HEAD = 1 << 20
MAX_REFUSAL = 1 << 20
# How long the pilot has for its answer, and for its last words after the client has gone.
HANDSHAKE_TIMEOUT = 30.0
# After a pilot has ended. That its process is gone may be seen a moment later than that it says nothing more.
ASKED_AGAIN_AFTER_S = (0.1, 0.5, None)
FAREWELL_TIMEOUT = 10.0
# How long what a client still sends is taken and dropped.
LINGER_TIMEOUT = 5.0
# Why a connection ends that nobody has closed.
PILOT_ENDED = "the sprite was stopped or destroyed, or its pilot has died"
SERVER_ENDED = "the server was stopped; sessions go on, and can be attached to again"

# What a sprite serves over WebSocket, below /v1/sprites/{name}.
ENDPOINTS = re.compile(
    rb"/v1/sprites/(?P<name>[^/]+)/(?P<rest>exec(/[^/]+)?|control|fs/watch|proxy|ports/watch)"
)
CONTROL = b"/control"
# Why the sprite is awake, by the first part of the path.
_REASONS = {
    b"exec": "an open exec connection",
    b"control": "a control connection in use",
    b"fs": "somebody who watches files",
    b"proxy": "an open proxy connection",
    b"ports": "somebody who watches ports",
}


class Tunnel(asyncio.StreamReaderProtocol):
    """One upgraded connection. uvicorn makes it with the keyword arguments."""

    def __init__(
        self,
        engine: Engine,
        gateway: Gateway,
        *,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        self._reader = asyncio.StreamReader(limit=READ_SIZE)
        super().__init__(self._reader)
        self._engine = engine
        self._gateway = gateway
        self._server = server_state
        self._task: asyncio.Task[None] | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream, for uvicorn listens to no other
        writer = asyncio.StreamWriter(transport, self, self._reader, asyncio.get_running_loop())
        self._task = asyncio.create_task(self._serve(writer))
        # uvicorn waits for what is in these sets when it shuts down, after telling each connection.
        self._server.connections.add(self)
        self._server.tasks.add(self._task)
        self._task.add_done_callback(self._server.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.connections.discard(self)

    def shutdown(self) -> None:
        """Called by uvicorn when the server ends. The session goes on, and can be attached again."""
        if self._task is not None:
            self._task.cancel()

    async def _serve(self, writer: asyncio.StreamWriter) -> None:
        try:
            await self._open(writer)
        except OSError:
            pass  # one side is gone; that the other is closed tells it
        except Exception as error:
            ours = error if isinstance(error, SprigganError) else internal_error()
            if ours is not error:
                log.exception("a WebSocket failed")
            if not self._answered:
                writer.write(whole_response(ours))
        finally:
            writer.close()

    async def _open(self, client: asyncio.StreamWriter) -> None:
        head = await self._head()
        sprite = self._gateway.sprite_of(list(head.headers))
        if sprite is None:
            await self._open_pilot(client, head)
        else:
            await self._open_url(client, head, sprite)
        await _linger(self._reader, client)

    async def _open_pilot(self, client: asyncio.StreamWriter, head: h11.Request) -> None:
        """What the API serves over WebSocket."""
        path, *query = head.target.partition(b"?")
        authorization = [value for field, value in head.headers if field == b"authorization"]
        caller = await identify(self._engine, authorization, local=_is_unix(client))
        caller.check(path.decode("ascii"))
        name, pilot_path = _endpoint(path)
        request = h11.Request(
            method=b"GET", target=pilot_path + b"".join(query), headers=_upgrade_headers(head)
        )
        reason = _REASONS[pilot_path.split(b"/")[1]]
        async with (
            self._asked(name, reason, request) as (hold, link, answer, first_bytes),
            contextlib.AsyncExitStack() as stack,
        ):
            if self._answer(client, answer, first_bytes, version.headers()):
                attention = None
                if pilot_path == CONTROL:
                    attention = Attention(self._engine, name, "a control connection in use")
                    stack.push_async_callback(attention.close)
                    await attention.call()
                    await hold.aclose()
                frames = Frames()
                frames.feed(first_bytes or b"")
                await _pipe(self._reader, client, link, attention, frames)

    @contextlib.asynccontextmanager
    async def _asked(self, name: str, reason: str, request: h11.Request) -> AsyncIterator[Asked]:
        """Wake the sprite, and ask its pilot.

        A pilot that has not answered has begun nothing. So if it ends, as it does when the sprite's first process
        has ended, another one is asked, as if the client had come a moment later.
        """
        for again_after in ASKED_AGAIN_AFTER_S:
            async with contextlib.AsyncExitStack() as stack:
                hold = await stack.enter_async_context(contextlib.AsyncExitStack())
                awake = await hold.enter_async_context(self._engine.awake(name, reason))
                link = await stack.enter_async_context(Link(awake.pilot_socket))
                try:
                    answer, first_bytes = await _handshake(request, link)
                except BROKEN_OFF as error:
                    if link.heard or isinstance(error, TimeoutError) or again_after is None:
                        raise _pilot_failed(error) from error
                else:
                    yield hold, link, answer, first_bytes
                    return
            await asyncio.sleep(again_after)

    async def _open_url(self, client: asyncio.StreamWriter, head: h11.Request, sprite: str) -> None:
        """A WebSocket of a program in the sprite."""
        if not head.target.startswith(b"/"):
            raise InvalidRequest("the target is not a path", hint="use a WebSocket client")
        peer = client.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else None
        visit = await self._gateway.admit(sprite, "GET", list(head.headers), address)
        upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        request = made_request(b"GET", head.target, [*visit.headers, *upgrade])
        what = shown("WebSocket", head.target.partition(b"?")[0])
        try:
            async with self._gateway.reach(visit, what) as (link, _):
                try:
                    answer, first_bytes = await _handshake(request, link)
                except BROKEN_OFF as error:
                    raise no_answer(error) from error
                if self._answer(client, answer, first_bytes, []):
                    await _pipe(self._reader, client, link)
        except SprigganError as error:
            raise visit.told(error) from error

    def _answer(
        self, client: asyncio.StreamWriter, answer: Answer, first_bytes: bytes | None, ours: Headers
    ) -> bool:
        """Tell the client how it went; whether the WebSocket is open."""
        self._answered = True
        client.write(_written(*answer, ours))
        client.write(first_bytes or b"")
        return first_bytes is not None

    async def _head(self) -> h11.Request:
        """The request, of which uvicorn has taken apart and put together every line."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        size = 0
        try:
            while (event := connection.next_event()) is h11.NEED_DATA:
                data = await self._reader.read(READ_SIZE)
                size += len(data)
                if size > MAX_HEAD:
                    raise head_too_large()
                connection.receive_data(data)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:
                raise head_too_large() from error
            raise InvalidRequest(f"this is not a WebSocket request ({error})") from error
        if not isinstance(event, h11.Request) or event.method != b"GET":
            raise InvalidRequest("a WebSocket is opened with GET", hint="use a WebSocket client")
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in event.headers
        ):
            # It would be taken for the first frames.
            raise InvalidRequest("a WebSocket is opened without a body", hint="use a WebSocket client")
        return event


def head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request's URL and headers are longer than {MAX_HEAD >> 10} KiB",
        hint="write a long script to a file first, and run that",
    )


def _endpoint(path: bytes) -> tuple[str, bytes]:
    """The sprite's name and the pilot's path for the path of a request.

    Each segment is decoded by itself and encoded anew, so that no encoded slash or dot can
    lead to another endpoint.
    """
    match = ENDPOINTS.fullmatch(path)
    parts = [unquote_to_bytes(part) for part in match["rest"].split(b"/")] if match else []
    if match is None or any(b"/" in part or part in (b".", b"..") for part in parts):
        raise NoSuchEndpoint(
            "no WebSocket is served under this path",
            hint="below /v1/sprites/NAME these are: exec, exec/SESSION, control, fs/watch, proxy, ports/watch",
        )
    name = unquote_to_bytes(match["name"]).decode(errors="replace")
    return name, b"".join(b"/" + quote(part, safe="").encode() for part in parts)


def _upgrade_headers(head: h11.Request) -> list[tuple[bytes, bytes]]:
    headers = [(name, value) for name, value in head.headers if name not in NOT_FORWARDED]
    return [*headers, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]


def _pilot_failed(error: BaseException) -> Broken:
    return Broken(
        f"the sprite's pilot did not open the session ({error or type(error).__name__})",
        hint="try again; the pilot's log has the details",
    )


async def _handshake(request: h11.Request, link: Link) -> tuple[Answer, bytes | None]:
    """Ask; return the answer, and what was sent after a 101. The second is None for a refusal.

    Raises one of ``BROKEN_OFF`` if it is neither.
    """
    connection = h11.Connection(h11.CLIENT)
    head = (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    refusal: h11.Response | None = None
    body = bytearray()
    async with asyncio.timeout(HANDSHAKE_TIMEOUT):
        await link.write(head)
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await link.read())
            elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                return (event, b""), connection.trailing_data[0]
            elif isinstance(event, h11.Response):
                refusal = event
            elif isinstance(event, h11.Data) and len(body) < MAX_REFUSAL:
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and refusal is not None:
                return (refusal, bytes(body)), None
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                raise EOFError("it closed the connection")


def _written(response: h11.InformationalResponse | h11.Response, body: bytes, more: Headers) -> bytes:
    """An answer as the client gets it: with ``more`` headers, and closing if it is a refusal."""
    lines = [b"HTTP/1.1 %d %s" % (response.status_code, bytes(response.reason))]
    headers = [(bytes(name), bytes(value)) for name, value in response.headers.raw_items()]
    ours = (
        {b"content-length", b"connection", b"transfer-encoding"}
        if isinstance(response, h11.Response)
        else set()
    )
    lines += [name + b": " + value for name, value in headers if name.lower() not in ours]
    lines += [name + b": " + value for name, value in more]
    if isinstance(response, h11.Response):
        lines += [b"Connection: close", b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def whole_response(error: SprigganError) -> bytes:
    """An error as a whole HTTP response, after which the connection is closed."""
    response = error_response(error)
    reason = HTTPStatus(response.status_code).phrase.encode()
    event = h11.Response(status_code=response.status_code, reason=reason, headers=response.raw_headers)
    return _written(event, bytes(response.body), version.headers())


async def _pipe(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    link: Link,
    attention: Attention | None = None,
    frames: Frames | None = None,
) -> None:
    """Copy both ways until the pilot ends, or the client has gone and the pilot had time to notice.

    With ``frames``, which follow what the client is sent, its WebSocket is closed if it was not.
    """
    upward = asyncio.create_task(_copy_up(reader, link, attention))
    downward = asyncio.create_task(_copy_down(link, writer, frames))
    reason = SERVER_ENDED
    try:
        await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
        # What the pilot has said is for the client, also when the pilot no longer listens.
        await asyncio.wait({downward}, timeout=FAREWELL_TIMEOUT)
        reason = PILOT_ENDED
    finally:
        for task in (upward, downward):
            task.cancel()
        await asyncio.gather(upward, downward, return_exceptions=True)
        if frames is not None and frames.between and not frames.closed and not reader.at_eof():
            writer.write(closing_frame(SERVICE_RESTART, reason))


async def _copy_up(reader: asyncio.StreamReader, link: Link, attention: Attention | None) -> None:
    """From the client to the pilot, no faster than the pilot reads."""
    frames = Frames()
    try:
        while data := await reader.read(READ_SIZE):
            if attention is not None and frames.feed(data):
                await attention.call()
            await link.write(data)
    finally:
        link.end()


async def _copy_down(link: Link, writer: asyncio.StreamWriter, frames: Frames | None) -> None:
    """From the pilot to the client, no faster than the client reads."""
    while data := await link.read():
        if frames is not None:
            frames.feed(data)
        writer.write(data)
        await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the connection so that the client gets all of it.

    To close while something of the client's is unread resets the connection, and a reset can
    overtake the last bytes: of a command that ended while its input was still being sent, the
    exit code would be lost.
    """
    with contextlib.suppress(OSError):
        writer.write_eof()
        async with asyncio.timeout(LINGER_TIMEOUT):
            while await reader.read(READ_SIZE):
                pass


def _is_unix(writer: asyncio.StreamWriter) -> bool:
    """Whether the client came over the unix socket: addresses of all others are tuples."""
    return isinstance(writer.get_extra_info("sockname"), str)
