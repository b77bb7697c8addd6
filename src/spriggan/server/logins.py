"""Browsers that have shown a token: what they keep as a cookie instead of it.

The value is good for one sprite's URL, says nothing to whoever reads it, and needs no record: a key in
the data directory signs it. It ends with its time, with the token's revocation, with the sprite, and with
the key. A server that is started again knows it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from spriggan.linux import durably

LASTS_S = 7 * 24 * 3600
KEY_BYTES = 32
_VALUE = re.compile(r"(?P<token_id>[A-Za-z0-9_-]{1,64})\.(?P<until>[0-9]{1,12})\.(?P<mac>[0-9a-f]{64})")


@dataclass(frozen=True)
class Logins:
    """Makes and checks the values, all with one ``key``."""

    key: bytes
    lasts_s: int = LASTS_S

    @classmethod
    def of(cls, path: Path) -> Logins:
        """With the key in the file ``path``, which is made if it is not there or is no key."""
        try:
            key = bytes.fromhex(path.read_text().strip())
        except (FileNotFoundError, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            key = secrets.token_bytes(KEY_BYTES)
            durably.write_text(path, key.hex() + "\n")
        return cls(key)

    def issue(self, sprite_id: str, token_id: str) -> str:
        """A value for who has shown that token at that sprite's URL."""
        until = str(int(time.time()) + self.lasts_s)
        return f"{token_id}.{until}.{self._mac(sprite_id, token_id, until)}"

    def token_id(self, value: str, sprite_id: str) -> str | None:
        """The id of the token that was shown; None if the value is not ours, of another sprite, or too old.

        Whether the token is still good is for the caller to find out.
        """
        match = _VALUE.fullmatch(value)
        if match is None:
            return None
        expected = self._mac(sprite_id, match["token_id"], match["until"])
        if not hmac.compare_digest(expected, match["mac"]) or int(match["until"]) < time.time():
            return None
        return match["token_id"]

    def _mac(self, sprite_id: str, token_id: str, until: str) -> str:
        signed = f"{sprite_id}\n{token_id}\n{until}".encode()
        return hmac.new(self.key, signed, hashlib.sha256).hexdigest()
