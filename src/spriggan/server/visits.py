"""Who asks for a sprite's URL, whether they may, and what of their headers the sprite gets to see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spriggan.engine import Engine, Sprite
from spriggan.errors import InvalidRequest, NotFound, SprigganError, Unavailable
from spriggan.server.auth import bearer
from spriggan.server.errors import BadGateway, Unauthenticated
from spriggan.server.forward import HOP_BY_HOP, Headers, end_to_end
from spriggan.server.logins import Logins
from spriggan.server.urls import Urls

MAX_LOGINS = 8  # values of our cookie that are looked at: another sprite below the domain may add some
_MADE_ANEW = HOP_BY_HOP | {b"content-length"}
# Where a request came from is said by who took it, in whatever spelling a program may read it.
_ORIGIN_OF_REQUEST = (b"forwarded", b"x-real-ip")


@dataclass(frozen=True)
class Visit:
    """A request that may go to ``sprite``, with the ``headers`` that it has there.

    ``known``: the visitor has shown a token, and is not anybody.
    """

    sprite: Sprite
    headers: Headers
    known: bool

    def told(self, error: SprigganError) -> SprigganError:
        """``error`` as this visitor may hear it: what ails a sprite is not for everybody."""
        if self.known or isinstance(error, BadGateway | Unavailable | InvalidRequest):
            return error
        return Unavailable("the sprite cannot be reached now", hint="whoever it belongs to can see why")


class Door:
    """Lets visitors in, or not."""

    def __init__(self, engine: Engine, urls: Urls, logins: Logins) -> None:
        self._engine = engine
        self._urls = urls
        self._logins = logins
        # With the prefix, browsers let no other host below the domain set it. It needs https.
        self.cookie = "__Host-spriggan" if urls.secure else "spriggan"

    async def admit(self, name: str, method: str, headers: Headers, client: str | None) -> Visit:
        """Admit a request for the URL of the sprite ``name``; ``client`` is the address it came from.

        Raises ``Unauthenticated`` for a sprite that is private, and in the same words for one that is not
        there; ``NotFound`` only for who has shown a token.
        """
        given, others = self._cookies(headers)
        token = await self._token(headers)
        if token is not None:
            others = [(field, value) for field, value in others if field != b"authorization"]

        async def shown(sprite: Sprite | None) -> bool:
            return token is not None or await self._logged_in(sprite, given, method, headers)

        sprite = self._engine.remembered(name)
        known = await shown(sprite)
        if sprite is None or not (known or _is_public(sprite)):
            # No refusal without asking the store: how long one takes is not to say which names there are.
            try:
                sprite = await self._engine.get(name)
            except NotFound:
                sprite = None
            known = await shown(sprite)
        if not known and (sprite is None or not _is_public(sprite)):
            raise Unauthenticated(
                "this URL is for those with a token of its server",
                hint="send 'Authorization: Bearer TOKEN', or open it in a browser; "
                "for everybody: spriggan url update --auth public",
            )
        if sprite is None:
            raise NotFound("sprite not found", hint="see what there is with: spriggan list")
        return Visit(sprite, [*_handed_on(others), *self._origin(headers, client)], known)

    async def log_in(self, name: str, token: str) -> str | None:
        """The header that has a browser keep that ``token`` was shown; None if the token is not good.

        Raises ``NotFound``.
        """
        found = await self._engine.check_token(token)
        if found is None:
            return None
        sprite = await self._engine.get(name)
        value = self._logins.issue(sprite.id, found.id)
        rest = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if self._urls.secure else "")
        return f"{self.cookie}={value}; Max-Age={self._logins.lasts_s}{rest}"

    def is_own_page(self, headers: Headers) -> bool:
        """Whether a request that names the page it was made on names one of the same host."""
        fields = dict(headers)
        own = f"{self._urls.scheme}://".encode() + fields.get(b"host", b"").lower()
        return fields.get(b"origin", own).lower() == own

    async def _token(self, headers: Headers) -> str | None:
        """The id of the token that is shown in ``Authorization``, if that is one of ours."""
        given = [value for field, value in headers if field == b"authorization"]
        if len(given) > 1:
            raise InvalidRequest("there are several Authorization headers", hint="send one")
        try:
            found = await self._engine.check_token(bearer(given)) if given else None
        except Unauthenticated:
            return None  # the service's business
        return found.id if found else None

    async def _logged_in(
        self, sprite: Sprite | None, given: list[str], method: str, headers: Headers
    ) -> bool:
        """Whether the browser has shown a token before, and asks this of itself.

        Other sprites are the same site to a browser, so it sends the cookie with what their pages ask,
        too. That counts only for going to the page, not for what is done or read in the back.
        """
        if sprite is None or not given or not self.is_own_page(headers):
            return False
        fields = dict(headers)
        if fields.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
            if method not in ("GET", "HEAD") or fields.get(b"sec-fetch-mode") != b"navigate":
                return False
        for value in given[:MAX_LOGINS]:
            token_id = self._logins.token_id(value, sprite.id)
            if token_id is not None and await self._engine.is_token_good(token_id):
                return True
        return False

    def _cookies(self, headers: Headers) -> tuple[list[str], Headers]:
        """The values of our cookie, and the headers without it."""
        ours: list[str] = []
        others: Headers = []
        for field, value in headers:
            if field != b"cookie":
                others.append((field, value))
                continue
            kept = []
            for cookie in value.split(b";"):
                name, _, content = cookie.strip().partition(b"=")
                if name.strip() == self.cookie.encode():
                    ours.append(content.strip().decode("latin-1"))
                else:
                    kept.append(cookie.strip())
            if any(kept):
                others.append((field, b"; ".join(kept)))
        return ours, others

    def _origin(self, headers: Headers, client: str | None) -> Headers:
        """Where the request came from."""
        said = [(b"x-forwarded-proto", self._urls.scheme.encode())]
        said += [(b"x-forwarded-host", value) for field, value in headers if field == b"host"]
        return said + ([(b"x-forwarded-for", client.encode())] if client else [])


def _is_public(sprite: Sprite) -> bool:
    return sprite.url_settings["auth"] == "public"


def wants_page(method: str, headers: Headers) -> bool:
    """Whether a browser goes to a page, and would show what it gets."""
    fields = dict(headers)
    return (
        method in ("GET", "HEAD")
        and b"text/html" in fields.get(b"accept", b"").lower()
        and fields.get(b"sec-fetch-mode", b"navigate") == b"navigate"
    )


def _handed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """``headers`` without those of one connection, and without what a client says of where it came from."""
    return [(field, value) for field, value in end_to_end(headers, _MADE_ANEW) if not _says_origin(field)]


def _says_origin(field: bytes) -> bool:
    plain = field.replace(b"_", b"-")
    return plain in _ORIGIN_OF_REQUEST or plain.startswith(b"x-forwarded-")
