"""Who may come in: tokens of people, and capabilities of sprites.

Only hashes are kept. A token is ``<organization>/<organization id>/<token id>/<secret>``;
a capability is good for the one sprite it was made for.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from spriggan import faults
from spriggan.engine import rows
from spriggan.engine.records import TokenInfo
from spriggan.engine.store import Store
from spriggan.errors import InvalidValue, NotFound
from spriggan.linux import durably

MAX_TEXT = 1024
MAX_LABEL = 128


def hashed(text: str) -> str:
    """SHA-256. No salt and no stretching: the secrets hashed here are 256 random bits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


_NOTHING = hashed("")


class Tokens:
    """The tokens of one data directory."""

    def __init__(self, store: Store, organization: str, organization_id: str) -> None:
        self._store = store
        self._prefix = f"{organization}/{organization_id}"

    async def create(self, label: str) -> str:
        """Make a token and return its text, which is not shown again."""
        if not isinstance(label, str) or not label.isprintable() or len(label) > MAX_LABEL:
            raise InvalidValue(
                "this cannot be a token's label", hint=f"at most {MAX_LABEL} printable characters"
            )
        text, token = self._new(label)
        await self._store.run(lambda tx: rows.insert_token(tx, token, hashed(text)))
        return text

    async def list(self) -> list[TokenInfo]:
        """Tokens that are good, oldest first."""
        return [token for token in await self._store.run(rows.tokens) if token.revoked_at is None]

    async def revoke(self, token_id: str) -> None:
        """From now on the token is refused."""
        if not await self._store.run(lambda tx: rows.revoke_token(tx, token_id)):
            raise NotFound("there is no token with that id", hint="list them with: spriggan token list")

    async def check(self, text: str) -> TokenInfo | None:
        """Whose token this is; None if it is none of ours. Wrong secrets take as long as the right one."""
        parts = text.split("/")
        if len(text) > MAX_TEXT or len(parts) != 4 or not text.isascii():
            return None
        found = await self._store.read(rows.token_and_hash, parts[2])
        token, expected = found or (None, _NOTHING)
        good = hmac.compare_digest(hashed(text), expected)
        return token if good and token and token.revoked_at is None else None

    async def is_good(self, token_id: str) -> bool:
        """Whether there is a token with that id, and it is not revoked."""
        found = await self._store.read(rows.token_and_hash, token_id)
        return found is not None and found[0].revoked_at is None

    async def write_first(self, path: Path) -> bool:
        """At the very first start, make a token and leave its text in ``path``, readable by its owner only.

        The file comes first: a crash in between leaves a token that is not good yet, and
        the next start writes another.
        """
        if await self._store.run(rows.tokens):
            return False
        text, token = self._new("first")
        durably.write_text(path, text + "\n")
        faults.point("token:written")
        await self._store.run(lambda tx: rows.insert_token(tx, token, hashed(text)))
        return True

    def _new(self, label: str) -> tuple[str, TokenInfo]:
        token = TokenInfo(id=secrets.token_hex(8), label=label, created_at=rows.now())
        return f"{self._prefix}/{token.id}/{secrets.token_urlsafe(32)}", token


class Capabilities:
    """What each running sprite may show to the server, as its pilot got it when it started."""

    def __init__(self) -> None:
        self._sprites: dict[str, str] = {}  # hash -> sprite id

    def new(self, sprite_id: str) -> str:
        """Make a capability, which replaces the sprite's earlier one."""
        text = secrets.token_urlsafe(32)
        self.know(sprite_id, hashed(text))
        return text

    def know(self, sprite_id: str, capability_hash: str) -> None:
        self.forget(sprite_id)
        self._sprites[capability_hash] = sprite_id

    def forget(self, sprite_id: str) -> None:
        self._sprites = {key: known for key, known in self._sprites.items() if known != sprite_id}

    def check(self, text: str) -> str | None:
        """The id of the sprite whose capability this is.

        Looked up by its hash, so the time it takes tells nothing of the text.
        """
        return self._sprites.get(hashed(text)) if len(text) <= MAX_TEXT else None
