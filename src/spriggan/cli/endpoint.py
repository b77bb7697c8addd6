"""Where the server is: by option, environment or memory, else by the socket in a data directory."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from spriggan.cli.command import Settings
from spriggan.cli.servers import Server, Servers
from spriggan.errors import InvalidRequest, SprigganError, Unavailable


@dataclass(frozen=True)
class Endpoint:
    """A server: its base URL and token, or its local socket, which needs no token.

    ``remembered``: the token is one of ``spriggan login``, not of the environment.
    """

    url: str
    token: str = ""
    socket: Path | None = None
    remembered: bool = False

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


def find(settings: Settings, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """Find the server; nothing is contacted yet.

    What was said for this run goes before what is remembered, and a place that was named before one that
    was not: ``--org``, SPRITES_API_URL, ``--data``, SPRITE_ORG, the server of ``spriggan login``, and the
    local one.
    """
    if settings.org is not None:
        return _remembered(Servers.load(environ).named(settings.org))
    if environ.get("SPRITES_API_URL", "").rstrip("/"):
        return _of_environment(environ)
    if settings.given_data is None:
        servers = Servers.load(environ)
        name = environ.get("SPRITE_ORG", "")
        chosen = servers.named(name) if name else servers.current
        if chosen:
            return _remembered(chosen)
    return Endpoint("http://localhost", socket=settings.data.absolute() / "api.sock")


def _of_environment(environ: Mapping[str, str]) -> Endpoint:
    url = checked_url(environ["SPRITES_API_URL"], "SPRITES_API_URL")
    token = environ.get("SPRITE_TOKEN", "")
    if token:
        return Endpoint(url, checked_token(token, "SPRITE_TOKEN"))
    known = Servers.load(environ).at(url)
    if known is None:
        raise InvalidRequest(
            "SPRITES_API_URL is set, but SPRITE_TOKEN is not",
            hint=f"set SPRITE_TOKEN to a token of that server, unset SPRITES_API_URL, or: spriggan login {url}",
        )
    return _remembered(known)


def _remembered(server: Server) -> Endpoint:
    return Endpoint(server.url, server.token, remembered=True)


def checked_url(text: str, what: str) -> str:
    """``text`` without slashes at its end; ``InvalidRequest``, naming ``what``, if it is no URL of a server."""
    url = text.rstrip("/")
    if not _is_url(url):
        raise InvalidRequest(
            f"{what} is {url!r}, which is not an http or https URL",
            hint="for a server on this machine it is http://127.0.0.1:7878",
        )
    return url


def checked_token(text: str, what: str) -> str:
    """``text``; ``InvalidRequest``, naming ``what``, if it cannot be a token."""
    if not (text and text.isascii() and text.isprintable() and " " not in text):
        raise InvalidRequest(
            f"{what} has characters that no token has" if text else f"{what} is empty",
            hint="copy it again, without line breaks",
        )
    return text


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
            "or log in to another: spriggan login URL",
        )
    return Unavailable(
        f"no server answers at {endpoint.url} ({str(error) or type(error).__name__})",
        hint="check whether the server runs, and "
        + ("'spriggan org list'" if endpoint.remembered else "SPRITES_API_URL"),
    )


def _not_allowed(endpoint: Endpoint) -> SprigganError:
    return Unavailable(
        f"the socket {endpoint.socket} is for the user who runs the server",
        hint="run this as that user (root), or set SPRITES_API_URL and SPRITE_TOKEN",
    )
