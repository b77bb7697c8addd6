"""Hands an HTTP request on to a pilot, and its response back, without changing a chunk.

In ``POST /exec`` one HTTP chunk is one frame (it has no length of its own), so a chunk of the
pilot's response becomes exactly one ASGI message, which uvicorn writes as one chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from pathlib import Path

import h11
from starlette.types import Message, Receive, Scope, Send

from spriggan.errors import Broken, InvalidRequest
from spriggan.linux.unread import Reader
from spriggan.server.link import Link

# A pilot's frames are far smaller. What is longer cannot be a frame, and goes on in pieces.
MAX_CHUNK = 4 << 20
BUSY_GAPS = 20  # how often at most a chunk waits once more because the machine is busy
UNREAD_S = 5.0  # how long at most a chunk waits for the client to read the one before
UNREAD_CHECK_S = 0.002
MAX_INTERIM = 16

# Of one connection (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
NOT_FORWARDED = HOP_BY_HOP | {b"authorization"}  # which is the server's own business

Headers = list[tuple[bytes, bytes]]
# What tells that the other side did not give a whole answer by the rules.
BROKEN_OFF = (h11.RemoteProtocolError, OSError, EOFError)


class ClientGone(Exception):
    """The client closed its connection before it had the whole response."""


async def forward(
    scope: Scope, receive: Receive, send: Send, *, socket: Path, target: bytes, gap: float = 0.0
) -> None:
    """Answer the request in ``scope`` with what the pilot at ``socket`` says to ``target``.

    ``gap`` is the least time between two chunks of the response, in seconds.

    Returns when the response is complete or the client is gone; then, or when cancelled, the
    connection to the pilot is closed. Raises only while nothing has been sent to the client.
    """
    async with Link(socket) as link:
        connection = h11.Connection(h11.CLIENT)
        response = _Response(send, gap, _reader(scope) if gap else None)
        sending = upload(receive, connection, link, _request(scope, target))
        try:
            await exchange(sending, _download(connection, link, response))
        except BROKEN_OFF as error:
            if not response.started:
                raise Broken(
                    f"the sprite's pilot broke off ({error or type(error).__name__})",
                    hint="try again; the pilot's log has the details",
                ) from error
            # uvicorn closes a connection whose response is not complete, so the client notices.


def _reader(scope: Scope) -> Reader | None:
    """Who reads the response, unless it comes by a Unix socket."""
    try:
        return Reader(scope["server"], scope["client"])
    except (TypeError, ValueError):
        return None


def end_to_end(headers: Iterable[tuple[bytes, bytes]], without: Collection[bytes] = NOT_FORWARDED) -> Headers:
    """``headers`` but for those ``without``, and those that ``Connection`` names; ``Host`` is never one connection's."""
    given = [(name.lower(), value) for name, value in headers]
    named = {
        token.strip().lower() for name, value in given if name == b"connection" for token in value.split(b",")
    } - {b"host"}
    return [(name, value) for name, value in given if name not in without and name not in named]


async def exchange(sending: Coroutine[None, None, None], receiving: Coroutine[None, None, None]) -> None:
    """Send the request and the response at the same time: either may be a stream without end.

    Returns when the response is complete, or the client is gone. Raises one of ``BROKEN_OFF`` when who
    answers breaks off.
    """
    up = asyncio.create_task(sending)
    down = asyncio.create_task(receiving)
    try:
        await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        if not down.done():
            await up
        await down
    except ClientGone:
        return
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


def _request(scope: Scope, target: bytes) -> h11.Request:
    """What the client asks, as it is asked of the pilot."""
    headers = end_to_end(scope["headers"])
    names = {name for name, _ in headers}
    if b"content-length" not in names and any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        headers.append((b"transfer-encoding", b"chunked"))
    if b"host" not in names:
        headers.append((b"host", b"sprite"))
    headers.append((b"connection", b"close"))
    return made_request(scope["method"].encode(), target, headers)


def made_request(method: bytes, target: bytes, headers: Headers) -> h11.Request:
    """A request that is one by the rules; raises ``InvalidRequest`` if these parts make none."""
    try:
        return h11.Request(method=method, target=target, headers=headers)
    except h11.LocalProtocolError as error:
        raise InvalidRequest(f"the headers contradict HTTP ({error})", hint="send each only once") from error


async def upload(receive: Receive, connection: h11.Connection, link: Link, request: h11.Request) -> None:
    """Send ``request`` with its body as it comes, then watch for the client to go away."""
    await _write(connection, link, request)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        if message.get("body"):
            await _write(connection, link, h11.Data(data=message["body"]))
        more = message.get("more_body", False)
    await _write(connection, link, h11.EndOfMessage())
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientGone


async def _write(connection: h11.Connection, link: Link, event: h11.Event) -> None:
    """Send ``event``. A pilot that refuses may answer and close before it has read the body: what
    it says is in its response, so that it no longer listens is no error here.
    """
    with contextlib.suppress(ConnectionError, h11.LocalProtocolError):
        if data := connection.send(event):
            await link.write(data)


class _Response:
    """The client's side of the response."""

    def __init__(self, send: Send, gap: float, reader: Reader | None) -> None:
        self.started = False
        self._send = send
        self._gap = gap
        self._reader = reader
        self._last = -gap

    async def start(self, response: h11.Response) -> None:
        self.started = True
        headers = end_to_end(response.headers)
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})

    async def body(self, data: bytes, *, more: bool) -> None:
        if data and self._gap:
            await self._keep_apart()
        message: Message = {"type": "http.response.body", "body": data, "more_body": more}
        await self._send(message)

    async def _keep_apart(self) -> None:
        """Wait until the last chunk is ``gap`` old, by a clock that stands still while the machine is too busy.

        A client takes what it reads at once for one chunk. Where even we are run late, so may it be; one
        on this machine is also waited for until it has read.
        """
        for _ in range(BUSY_GAPS):
            before = time.monotonic()
            wait = max(self._last + self._gap - before, 0.0)
            await asyncio.sleep(wait)
            self._last = time.monotonic()
            if self._last - before - wait < self._gap / 2:
                break
        end = time.monotonic() + UNREAD_S
        while self._reader and self._reader.unread() and time.monotonic() < end:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(UNREAD_CHECK_S)
        self._last = time.monotonic()


async def _download(connection: h11.Connection, link: Link, response: _Response) -> None:
    """Hand the response on, chunk by chunk."""
    chunked = False
    chunk = bytearray()
    async for event in events(connection, link):
        if isinstance(event, h11.Response):
            chunked = any(name == b"transfer-encoding" for name, _ in event.headers)
            await response.start(event)
        elif isinstance(event, h11.Data):
            if not chunked:
                await response.body(bytes(event.data), more=True)
                continue
            chunk += event.data
            if event.chunk_end or len(chunk) > MAX_CHUNK:
                await response.body(bytes(chunk), more=True)
                chunk.clear()
    await response.body(b"", more=False)


async def events(connection: h11.Connection, link: Link) -> AsyncIterator[h11.Event]:
    """What is answered, up to the end of the response. Interim responses are for nobody."""
    interim = 0
    while interim <= MAX_INTERIM:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await link.read())
        elif isinstance(event, h11.EndOfMessage):
            return
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise EOFError("the connection was closed")
        elif isinstance(event, h11.InformationalResponse):
            interim += 1
        elif isinstance(event, h11.Event):
            yield event
    raise EOFError("it has only interim responses")
