"""The servers that a person has logged in to, with their tokens, in one file of theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from spriggan.errors import InvalidRequest, NotFound
from spriggan.linux import durably


@dataclass(frozen=True)
class Server:
    """One server, and who one is there."""

    url: str
    token: str
    organization: str

    @property
    def host(self) -> str:
        """The name or address in its URL, which is what people call it."""
        return urlsplit(self.url).hostname or self.url


@dataclass(frozen=True)
class Servers:
    """What is remembered: all servers, and which one is meant when none is named."""

    file: Path
    known: tuple[Server, ...] = ()
    current: Server | None = None

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Servers:
        """Read the file; nothing is remembered where there is none, or only somebody else's.

        Raises ``InvalidRequest`` if it is damaged.
        """
        file = _file(environ)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            known = tuple(
                Server(str(each["url"]), str(each["token"]), str(each["organization"]))
                for each in content["servers"]
            )
            current = next((each for each in known if each.url == content["current"]), None)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return cls(file)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"{file} cannot be understood ({type(error).__name__})",
                hint="remove it, and log in again with 'spriggan login URL'",
            ) from error
        return cls(file, known, current)

    def at(self, url: str) -> Server | None:
        """The server with this URL."""
        return next((each for each in self.known if each.url == url), None)

    def named(self, name: str) -> Server:
        """The one server with this URL, host or organization. Raises ``NotFound``, ``InvalidRequest``."""
        url = name.rstrip("/")
        for key in ("url", "host", "organization"):
            found = [each for each in self.known if getattr(each, key) == url]
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidRequest(
                    f"{len(found)} servers are called {name!r}", hint="give the URL; see 'spriggan org list'"
                )
        raise NotFound(f"no server {name!r} is remembered", hint="spriggan org list; spriggan login URL")

    def with_server(self, server: Server) -> Servers:
        """The same and ``server``, which becomes the current one."""
        others = tuple(each for each in self.known if each.url != server.url)
        return replace(self, known=(*others, server), current=server)

    def without(self, server: Server) -> Servers:
        """The same without ``server``; if that was the current one there is none."""
        current = None if self.current == server else self.current
        return replace(self, known=tuple(each for each in self.known if each != server), current=current)

    def save(self) -> None:
        """Write the file, which nobody else may read. Raises ``OSError``."""
        content = {
            "current": self.current.url if self.current else None,
            "servers": [asdict(each) for each in self.known],
        }
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        durably.write_text(self.file, json.dumps(content, indent=2) + "\n")


def _file(environ: Mapping[str, str]) -> Path:
    place = environ.get("XDG_CONFIG_HOME", "")
    # The specification has a relative path ignored. Path.expanduser fails for who has no home.
    directory = Path(place if place.startswith("/") else os.path.expanduser("~/.config"))  # noqa: PTH111
    return directory / "spriggan" / "servers.json"
