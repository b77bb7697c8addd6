"""Who is asking, and whether they may."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from spriggan.engine import Engine
from spriggan.errors import SprigganError
from spriggan.server.errors import Forbidden, Unauthenticated, error_response

# Described to everybody: it says nothing about this server that its source does not say.
PUBLIC = {("GET", "/openapi.json")}

# The only thing a sprite may ask of the engine about itself, and so all that its token opens.
CHECKPOINTS = re.compile(r"/v1/sprites/(?P<name>[^/]+)/(checkpoint|checkpoints(/[^/]+(/restore)?)?)")


@dataclass(frozen=True)
class Caller:
    """``sprite`` is the only sprite whose checkpoints the caller may touch; without it, all is allowed."""

    sprite: str | None = None

    def check(self, path: str) -> None:
        """Raise ``Forbidden`` if the caller may not ask for ``path`` (decoded)."""
        if self.sprite is None:
            return
        match = CHECKPOINTS.fullmatch(path)
        if match is None or not hmac.compare_digest(match["name"].encode(), self.sprite.encode()):
            raise Forbidden(
                "this token is good for the checkpoints of its own sprite only",
                hint="use a token made with 'spriggan token create'",
            )


async def identify(engine: Engine, authorization: Iterable[bytes], *, local: bool) -> Caller:
    """Say who sent the ``Authorization`` headers; raise ``Unauthenticated`` when that is nobody known.

    ``local`` is true for the unix socket, which only its owner can open: without a token it
    is the administrator. With one, the token decides, for pilots ask on behalf of sprites there.
    """
    given = list(authorization)
    if not given:
        if local:
            return Caller()
        raise Unauthenticated(
            "a token is needed",
            hint="send 'Authorization: Bearer TOKEN'; 'spriggan token create' on the server makes one",
        )
    token = bearer(given)
    sprite = await engine.check_capability(token)
    if sprite is not None:
        return Caller(sprite)
    if await engine.check_token(token) is None:
        raise Unauthenticated(
            "the token is not valid here",
            hint="it may be revoked or of another server; 'spriggan token create' makes a new one",
        )
    return Caller()


def is_local(scope: Scope) -> bool:
    """Whether a request came in over the unix socket: only there the server's address has no port."""
    server = scope.get("server")
    return server is not None and server[1] is None


class Authenticated:
    """Lets only those requests through to ``app`` whose sender is known and allowed."""

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self.app = app
        self.engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) not in PUBLIC:
            authorization = [value for name, value in scope["headers"] if name == b"authorization"]
            try:
                caller = await identify(self.engine, authorization, local=is_local(scope))
                caller.check(scope["path"])
            except SprigganError as error:
                await error_response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def bearer(given: list[bytes]) -> str:
    """The token of the one ``Authorization`` header. Clients that mint tokens say FlyV1, not Bearer."""
    kind, _, token = given[0].partition(b" ")
    token = token.strip()
    if len(given) == 1 and kind.lower() in (b"bearer", b"flyv1") and token and token.isascii():
        return token.decode("ascii")
    raise Unauthenticated(
        "the Authorization header is not one bearer token", hint="send 'Authorization: Bearer TOKEN'"
    )
