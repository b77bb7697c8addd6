"""Where the server is: by environment, else by the socket in a data directory."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from spriggan.errors import InvalidRequest, SprigganError, Unavailable


@dataclass(frozen=True)
class Endpoint:
    """A server: its base URL and token, or its local socket, which needs no token."""

    url: str
    token: str = ""
    socket: Path | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, where a proxy has no business."""
        host = urlsplit(self.url).hostname or ""
        try:
            return self.socket is not None or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    def __str__(self) -> str:
        return str(self.socket) if self.socket else self.url


def find(data: Path, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Find the server; nothing is contacted yet."""
    url = environ.get("SPRITES_API_URL", "").rstrip("/")
    if not url:
        return Endpoint("http://localhost", socket=data.absolute() / "api.sock")
    token = environ.get("SPRITE_TOKEN", "")
    if not token:
        raise InvalidRequest(
            "SPRITES_API_URL is set, but SPRITE_TOKEN is not",
            hint="set SPRITE_TOKEN to a token of that server, or unset SPRITES_API_URL",
        )
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidRequest(
            "SPRITE_TOKEN has characters that no token has", hint="copy it again, without line breaks"
        )
    if not _is_url(url):
        raise InvalidRequest(
            f"SPRITES_API_URL is {url!r}, which is not an http or https URL",
            hint="for a server on this machine it is http://127.0.0.1:7878",
        )
    return Endpoint(url, token)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that cannot be
        return False


def segment(text: str) -> str:
    """``text`` as one segment of a URL path, whatever is in it."""
    if text in ("", ".", ".."):
        raise InvalidRequest(f"{text!r} is not a name", hint="names are letters, digits and dashes")
    return quote(text, safe="")


def unreachable(endpoint: Endpoint, error: BaseException) -> SprigganError:
    """Say that no server answered, and what to do about it."""
    if endpoint.socket and not os.access(endpoint.socket.parent, os.X_OK) and endpoint.socket.parent.exists():
        return _not_allowed(endpoint)
    if endpoint.socket and endpoint.socket.exists() and not os.access(endpoint.socket, os.R_OK | os.W_OK):
        return _not_allowed(endpoint)
    if endpoint.socket:
        return Unavailable(
            f"no server answers at {endpoint.socket}",
            hint="start one with 'spriggan serve', name its data directory with --data, "
            "or set SPRITES_API_URL and SPRITE_TOKEN",
        )
    return Unavailable(
        f"no server answers at {endpoint.url} ({str(error) or type(error).__name__})",
        hint="check SPRITES_API_URL and whether the server runs",
    )


def _not_allowed(endpoint: Endpoint) -> SprigganError:
    return Unavailable(
        f"the socket {endpoint.socket} is for the user who runs the server",
        hint="run this as that user (root), or set SPRITES_API_URL and SPRITE_TOKEN",
    )
