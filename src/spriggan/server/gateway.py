"""The URLs of sprites: a request whose Host is a sprite's goes to the sprite, whatever its path.

This comes before everything else of the server, so that no path of a sprite's own is ever taken for one
of the API. See ``visits`` for who may, and ``service`` for what is said to whom.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from urllib.parse import parse_qs

import h11
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from spriggan.engine import Engine, Sprite
from spriggan.errors import InvalidRequest, SprigganError, Unavailable
from spriggan.server.errors import (
    BadGateway,
    Forbidden,
    MethodNotAllowed,
    TooLarge,
    Unauthenticated,
    error_response,
)
from spriggan.server.forward import Headers
from spriggan.server.kept import Kept
from spriggan.server.link import Link
from spriggan.server.logins import Logins
from spriggan.server.pages import LOGIN, error_page, login_page
from spriggan.server.service import answer, connected, is_last, request_of
from spriggan.server.urls import Urls
from spriggan.server.visits import Door, Visit, wants_page

MAX_CONNECTIONS = 512  # at a time, for the URL of one sprite
MAX_LOGIN = 16 << 10
MAX_NEXT = 2048
MAX_SHOWN_PATH = 80


class Gateway:
    """Takes the requests for sprites' URLs out of those for ``app``."""

    def __init__(self, app: ASGIApp, engine: Engine, urls: Urls, logins: Logins) -> None:
        self._app = app
        self._engine = engine
        self._urls = urls
        self._door = Door(engine, urls, logins)
        self._open: Counter[str] = Counter()
        self._kept = Kept()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                name = self.sprite_of(scope["headers"])
            except InvalidRequest as error:
                await error_response(error)(scope, receive, send)
                return
            if name is not None:
                await self._serve(name, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Close what is kept."""
        self._kept.close()

    def sprite_of(self, headers: Headers) -> str | None:
        """The name of the sprite whose URL is asked for; None if it is the server itself.

        Raises ``InvalidRequest`` if that is not clear.
        """
        hosts = [value for field, value in headers if field == b"host"]
        if len(hosts) > 1:
            raise InvalidRequest("there are several Host headers", hint="send one")
        return self._urls.sprite_at(hosts[0]) if hosts else None

    async def admit(self, name: str, method: str, headers: Headers, client: str | None) -> Visit:
        """See ``Door.admit``."""
        return await self._door.admit(name, method, headers, client)

    @contextlib.asynccontextmanager
    async def reach(self, visit: Visit, what: str) -> AsyncIterator[tuple[Link, int]]:
        """A new connection to the sprite's service, which holds the sprite awake, and the run it is made in.

        ``what`` is shown to people.
        """
        sprite = visit.sprite
        with self._counted(sprite):
            async with self._engine.awake(sprite.name, f"url {what}") as awake:
                if awake.sprite.id != sprite.id:  # destroyed, and made again with other settings
                    raise Unavailable("the sprite was just replaced", hint="try again")
                async with connected(awake.pilot_socket) as link:
                    yield link, awake.run

    @contextlib.contextmanager
    def _counted(self, sprite: Sprite) -> Iterator[None]:
        """A connection to the URL of ``sprite`` for as long as the block lasts."""
        if self._open[sprite.id] >= MAX_CONNECTIONS:
            raise Unavailable(
                f"{MAX_CONNECTIONS} connections to this URL are open", hint="try again in a moment"
            )
        self._open[sprite.id] += 1
        try:
            yield
        finally:
            self._open[sprite.id] -= 1
            if not self._open[sprite.id]:
                del self._open[sprite.id]

    async def _again(
        self, visit: Visit, what: str, request: h11.Request, receive: Receive, send: Send
    ) -> bool:
        """Answer over a connection that was kept; False if there is none, or it brought nothing."""
        sprite = visit.sprite
        hold = self._engine.hold(sprite.id, f"url {what}")
        if hold is None:
            return False
        with self._counted(sprite), hold as run:
            link = self._kept.take(sprite.id, run)
            if link is None:
                return False
            async with link:
                try:
                    await answer(receive, send, link, request, self._keeper(sprite, run))
                except BadGateway:
                    if link.heard:
                        raise
                    return False  # the service closed it just then; to ask twice does no harm
            return True

    def _keeper(self, sprite: Sprite, run: int) -> Callable[[Link], None]:
        return functools.partial(self._kept.put, sprite.id, run)

    async def _serve(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        method, headers = scope["method"], scope["headers"]
        path: bytes = scope["raw_path"]
        target = path + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        client = scope["client"][0] if scope["client"] else None
        visit: Visit | None = None
        try:
            if path == LOGIN.encode():
                await (await self._login(name, scope, receive))(scope, receive, send)
                return
            visit = await self.admit(name, method, headers, client)
            request = request_of(scope, target, visit.headers)
            what = shown(method, path)
            if is_last(request) or not await self._again(visit, what, request, receive, send):
                async with self.reach(visit, what) as (link, run):
                    await answer(receive, send, link, request, self._keeper(visit.sprite, run))
        except SprigganError as error:
            told = visit.told(error) if visit else error
            # Who has sent the form goes to a page, too.
            going = "GET" if path == LOGIN.encode() else method
            await _refusal(told, going, headers, target)(scope, receive, send)

    async def _login(self, name: str, scope: Scope, receive: Receive) -> Response:
        """The one path that is not the sprite's."""
        if scope["method"] in ("GET", "HEAD"):
            return login_page("Show a token to open it.", "/", status=200)
        if scope["method"] != "POST":
            raise MethodNotAllowed(f"{scope['method']} is not for this path", hint="send the form with POST")
        if not self._door.is_own_page(scope["headers"]):
            raise Forbidden("the form is of another host", hint="open the sprite's own URL")
        form = parse_qs((await _body(receive)).decode("latin-1"))
        token, following = (form.get(field, [""])[0] for field in ("token", "next"))
        cookie = await self._door.log_in(name, token.strip())
        if cookie is None:
            words = "That token is not valid here: it may be revoked or of another server."
            return login_page(words, _own_path(following), status=401)
        there = {"Location": _own_path(following), "Set-Cookie": cookie, "Cache-Control": "no-store"}
        return Response(status_code=HTTPStatus.SEE_OTHER, headers=there)


def shown(method: str, path: bytes) -> str:
    """A request as people see it among the reasons why a sprite is awake."""
    text = path.decode("latin-1")
    return f"{method} {text if len(text) <= MAX_SHOWN_PATH else text[:MAX_SHOWN_PATH] + '…'}"


def _refusal(error: SprigganError, method: str, headers: Headers, target: bytes) -> Response:
    """The response that says ``error`` to a program, or to a person."""
    if not wants_page(method, headers):
        return error_response(error)
    if isinstance(error, Unauthenticated):
        return login_page("Show a token to open it.", _own_path(target.decode("latin-1")), status=401)
    return error_page(error)


def _own_path(text: str) -> str:
    """``text`` if it is a path on the same host, for all who read it, else the first page."""
    plain = text.isascii() and text.isprintable() and "\\" not in text and " " not in text
    own = text.startswith("/") and not text.startswith(("//", LOGIN))
    return text if plain and own and len(text) <= MAX_NEXT else "/"


async def _body(receive: Receive) -> bytes:
    """All of a small body."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise InvalidRequest("the request ended early", hint="send it again")
        body += message.get("body", b"")
        if len(body) > MAX_LOGIN:
            raise TooLarge("the form is too large", hint="send a token")
        if not message.get("more_body", False):
            return bytes(body)
