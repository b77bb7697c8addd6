"""HTTP with what serves a sprite's URL: a program of a user's, which may say anything.

The pilot connects, and passes the connection on as a descriptor. Nothing that came in is sent on as it
came: heads are taken apart and put together anew, on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import h11
from starlette.types import Receive, Scope, Send

from spriggan.errors import Broken, InvalidRequest, SprigganError, Unavailable
from spriggan.server.errors import BadGateway
from spriggan.server.forward import BROKEN_OFF, Headers, end_to_end, events, exchange, made_request, upload
from spriggan.server.link import Link

CONNECT_TIMEOUT = 60.0  # a service that is being started has 30 s
MAX_HEAD = 64 << 10
MAX_WORDS = 64 << 10
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # what uvicorn would rather fail than send


@contextlib.asynccontextmanager
async def connected(pilot_socket: Path) -> AsyncIterator[Link]:
    """A connection to what serves the URL of the sprite with that pilot.

    Raises ``BadGateway`` if nothing does.
    """
    async with Link(pilot_socket) as pilot:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                connection = await _ask(pilot)
        except BROKEN_OFF as error:
            raise Unavailable(
                f"the sprite's pilot broke off ({error or type(error).__name__})",
                hint="try again in a moment",
            ) from error
    async with Link.over(connection) as link:
        yield link


def request_of(scope: Scope, target: bytes, headers: Headers) -> h11.Request:
    """The request in ``scope`` as it is asked of the service; ``headers`` are the end-to-end ones.

    The connection may be used again after a GET without a body. A service that overlooks a body would take it
    for another request, and its answer would be the next visitor's.

    Raises ``InvalidRequest`` if it can be read in more than one way.
    """
    method, framing = scope["method"].encode(), _framing(scope["headers"])
    if method != b"GET" or framing:
        framing.append((b"connection", b"close"))
    return made_request(method, target, [*headers, *framing])


def is_last(request: h11.Request) -> bool:
    """Whether ``request`` says that no other follows it on its connection."""
    return (b"connection", b"close") in request.headers


async def answer(
    receive: Receive, send: Send, link: Link, request: h11.Request, keep: Callable[[Link], None]
) -> None:
    """Answer a client with what the service says to ``request``.

    If the connection is good for another request, ``keep`` gets it, before the client can ask again.

    Returns when the response is complete, cut off, or the client gone. Raises only while nothing has been
    sent to the client.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    started = False

    async def download() -> None:
        nonlocal started
        async for event in events(connection, link):
            if isinstance(event, h11.Response):
                head = _head(event)
                started = True
                await send({"type": "http.response.start", "status": event.status_code, "headers": head})
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        if connection.our_state is connection.their_state is h11.DONE and not connection.trailing_data[0]:
            keep(link.release())
        await send({"type": "http.response.body", "body": b""})

    try:
        await exchange(upload(receive, connection, link, request), download())
    except BROKEN_OFF as error:
        if not started:
            raise no_answer(error) from error
        # uvicorn closes a connection whose response is not complete, so the client notices.


def no_answer(error: BaseException) -> BadGateway:
    """What a client is told when there is no answer in HTTP."""
    return BadGateway(
        f"what serves this URL in the sprite gave no proper answer ({error or type(error).__name__})",
        hint="the program's own log may say why",
    )


def _framing(headers: Headers) -> Headers:
    """How long the body is, as the client's parser has understood it."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if codings and codings != [b"chunked"]:
        raise InvalidRequest(
            "the body has a transfer coding that is not understood here", hint="send it chunked, or as it is"
        )
    framing = [(b"transfer-encoding", b"chunked")] if codings else []
    return framing + [(b"content-length", length) for length in lengths if not codings]


def _head(response: h11.Response) -> Headers:
    """The headers for the client. Raises ``BadGateway`` if the response cannot be one."""
    if not 200 <= response.status_code <= 599:
        raise no_answer(ValueError(f"status {response.status_code}"))
    chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
    bodiless = response.status_code in (204, 304)
    headers = []
    for name, value in end_to_end(response.headers):
        if name == b"date" or (name == b"content-length" and (chunked or bodiless)):
            continue  # the server's own date goes out, and the length is another or none
        if _CONTROL.search(value):
            raise no_answer(ValueError("a control character in a header"))
        headers.append((name, value))
    return headers


async def _ask(pilot: Link) -> socket.socket:
    """Have the pilot connect, and take what it passes."""
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method=b"POST", target=b"/pilot/connect", headers=[(b"host", b"pilot")])
    await pilot.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, words = 0, bytearray()
    with contextlib.ExitStack() as stack:
        passed: socket.socket | None = None
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                data, descriptors = await pilot.read_passed()
                for descriptor in descriptors:
                    passed = stack.enter_context(socket.socket(fileno=descriptor))
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data) and len(words) < MAX_WORDS:
                words += event.data
            elif isinstance(event, h11.ConnectionClosed):
                raise EOFError("it closed the connection")
        if status != 200 or passed is None:
            raise _refusal(status, bytes(words))
        stack.pop_all()  # from here on it is the caller's
        passed.setblocking(False)
        return passed


def _refusal(status: int, body: bytes) -> SprigganError:
    """The pilot's words, as an error of the kind that its status says."""
    try:
        said = json.loads(body)
        message, hint = str(said["message"]), str(said["hint"])
    except (ValueError, TypeError, KeyError):
        # One that an earlier server started knows nothing of URLs.
        hint = "bring the sprite to this server's version: spriggan upgrade NAME"
        return Broken(f"the sprite's pilot does not connect (status {status})", hint=hint)
    kind = {502: BadGateway, 503: Unavailable}.get(status, Broken)
    return kind(message, hint=hint)
