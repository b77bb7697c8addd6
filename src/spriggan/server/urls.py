"""The addresses of sprites: what each is reached at, and whose a request is by its Host."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from spriggan.errors import InvalidRequest

NAME = "{name}"
DEFAULT_DOMAIN = "sprites.localhost"  # every name below localhost is this machine, for browsers and curl, too
_EXAMPLE = "for example https://{name}.sprites.example.com"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_DOMAIN = 253 - 64  # what a name of 63 letters leaves of the longest host name


@dataclass(frozen=True)
class Urls:
    """``template`` is a URL without a path, with ``{name}`` for the first part of the host's name."""

    template: str
    domain: str
    secure: bool  # whether browsers reach it by https

    @classmethod
    def parse(cls, template: str) -> Urls:
        """Raises ``InvalidRequest`` with what is wrong with ``template``."""
        try:
            parts = urlsplit(template)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _refused(template, str(error)) from error
        if parts.scheme not in ("http", "https"):
            raise _refused(template, "it begins with neither http:// nor https://")
        # Put together anew it must be what was given: no user, no path, nothing that is read in two ways.
        domain = host.removeprefix(f"{NAME}.")
        plain = f"{parts.scheme}://{NAME}.{domain}" + (f":{port}" if port else "")
        if template.rstrip("/") != plain or NAME in domain:
            raise _refused(template, f"it is not a scheme, {NAME}, a dot, a domain, and perhaps a port")
        if not all(_LABEL.fullmatch(label) for label in domain.split(".")) or len(domain) > _MAX_DOMAIN:
            raise _refused(template, f"{domain[:80]!r} is not a domain in lower-case letters")
        if _is_address(domain):
            raise _refused(template, "names go before a domain, not before an address")
        return cls(plain, domain, parts.scheme == "https")

    @classmethod
    def here(cls, port: int) -> Urls:
        """For browsers on this machine, without anything in front of the server."""
        return cls.parse(f"http://{NAME}.{DEFAULT_DOMAIN}:{port}")

    @property
    def scheme(self) -> str:
        return "https" if self.secure else "http"

    def sprite_at(self, host: bytes) -> str | None:
        """The name of the sprite that ``host``, the value of a ``Host`` header, belongs to; None if it is the
        server's own. What is below the domain is a sprite's, also when no sprite can have that name.
        """
        name, dot, domain = _host_name(host).partition(".")
        below = f"{name}{dot}{domain}".endswith(f".{self.domain}")
        if domain == self.domain:
            return name
        return "" if below else None


def _host_name(host: bytes) -> str:
    """The name alone, in lower case, without a port and without the root's dot."""
    text = host.decode("latin-1").strip().lower()
    name, _, _ = text.partition(":")
    return name.removesuffix(".")


def _is_address(domain: str) -> bool:
    try:
        ipaddress.ip_address(domain)
    except ValueError:
        return False
    return True


def _refused(template: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{template[:120]!r} cannot be the URL of sprites: {why}", hint=_EXAMPLE)
