"""The package sources of this host, as far as they are its distribution's own.

The image is built from where the host gets its packages. Repositories of third parties
(PPAs, vendors) are left out: the image is the distribution's, not this host's.
"""

from __future__ import annotations

import ipaddress
import platform
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from spriggan.errors import MissingCapability

_OPTION_FIELDS = {"arch": "Architectures", "lang": "Languages", "target": "Targets", "pdiffs": "PDiffs"}
_ALIASES = ("oldoldstable", "oldstable", "stable", "testing")
_POCKETS = ("", "-updates", "-security")
_KEYRINGS = {
    "debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
    "ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}
# Names that mean something in the host's network only; a sprite resolves public names.
_LOCAL_DOMAINS = (".local", ".lan", ".internal", ".home.arpa", ".corp", ".localdomain")


@dataclass(frozen=True)
class Distribution:
    """The distribution of this host."""

    id: str  # "debian", "ubuntu"
    codename: str

    def __str__(self) -> str:
        return f"{self.id} {self.codename}"

    @property
    def keyring(self) -> str:
        return _KEYRINGS[self.id]

    def mirror(self, suite: str) -> str:
        """The official mirror, for the image when the host's own is not reachable from a sprite."""
        if self.id == "debian":
            return "http://deb.debian.org/debian" + ("-security" if suite.endswith("-security") else "")
        if platform.machine() == "x86_64":
            return "http://archive.ubuntu.com/ubuntu"
        return "http://ports.ubuntu.com/ubuntu-ports"

    @classmethod
    def of_host(cls, os_release: Path = Path("/etc/os-release")) -> Distribution:
        fields = {}
        if os_release.exists():
            for line in os_release.read_text().splitlines():
                name, _, value = line.partition("=")
                fields[name.strip()] = value.strip().strip("\"'")
        distribution, codename = fields.get("ID", ""), fields.get("VERSION_CODENAME", "")
        if distribution not in _KEYRINGS or not codename:
            raise MissingCapability(
                f"the image is built from the host's own distribution, and {distribution or 'this host'!r} "
                "is neither Debian nor Ubuntu",
                hint="Build the image on a Debian or Ubuntu host and copy its images/ directory.",
            )
        return cls(distribution, codename)


@dataclass(frozen=True)
class Source:
    """One stanza of apt's deb822 format, reduced to one URI and one suite."""

    uri: str
    suite: str
    components: str
    others: tuple[tuple[str, str], ...] = ()  # further fields, e.g. Signed-By

    def stanza(self) -> str:
        fields = [
            ("Types", "deb"),
            ("URIs", self.uri),
            ("Suites", self.suite),
            ("Components", self.components),
            *self.others,
        ]
        return "".join(f"{name}: {value}\n" for name, value in fields)

    def in_image(self, distribution: Distribution) -> Source:
        """The same source as the image shall know it: public, by code name, with no secrets."""
        suite = _by_codename(self.suite, distribution.codename)
        uri = self.uri if _is_public(self.uri) else distribution.mirror(suite)
        return Source(uri, suite, self.components, (("Signed-By", distribution.keyring),))


def host_sources(distribution: Distribution, etc: Path = Path("/etc/apt")) -> list[Source]:
    """Sources that may be the distribution's, judged by suite; whose they are, only apt can tell."""
    found: list[Source] = []
    parts = etc / "sources.list.d"
    lists = [etc / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    for path in lists:
        if path.is_file():
            read = _read_deb822 if path.suffix == ".sources" else _read_one_line
            found += read(path.read_text())
    wanted = {
        name + pocket for name in (distribution.codename, *_aliases(distribution)) for pocket in _POCKETS
    }
    # Old-style Debian security suites ("bookworm/updates") went with Debian 10.
    return list(dict.fromkeys(source for source in found if source.suite in wanted))


def stanzas(sources: list[Source]) -> str:
    """The text of a ``.sources`` file."""
    return "\n".join(source.stanza() for source in sources)


def _aliases(distribution: Distribution) -> tuple[str, ...]:
    return _ALIASES if distribution.id == "debian" else ()


def _by_codename(suite: str, codename: str) -> str:
    name, dash, pocket = suite.partition("-")
    return (codename if name in _ALIASES else name) + dash + pocket


def _read_one_line(text: str) -> list[Source]:
    found = []
    for raw in text.splitlines():
        kind, _, rest = raw.partition("#")[0].strip().partition(" ")
        if kind != "deb":
            continue
        rest = rest.strip()
        others = []
        if rest.startswith("["):
            options, _, rest = rest[1:].partition("]")
            for option in options.split():
                name, _, value = option.partition("=")
                field = _OPTION_FIELDS.get(name.lower(), name.title())
                others.append((field, value.replace(",", " ")))
        words = rest.split()
        if len(words) >= 3:
            found.append(Source(words[0], words[1], " ".join(words[2:]), tuple(others)))
    return found


def _read_deb822(text: str) -> list[Source]:
    found = []
    for fields in _stanzas(text):
        types, enabled = fields.pop("types", ""), fields.pop("enabled", "yes")
        if "deb" not in types.split() or enabled.strip().lower() in ("no", "false", "0", "off"):
            continue
        uris, suites = fields.pop("uris", "").split(), fields.pop("suites", "").split()
        components = " ".join(fields.pop("components", "").split())
        others = tuple((name.title(), value) for name, value in fields.items() if not name.startswith("x-"))
        found += [Source(uri, suite, components, others) for uri in uris for suite in suites if components]
    return found


def _stanzas(text: str) -> list[dict[str, str]]:
    """Split deb822 text into stanzas; names in lower case, continuation lines kept (inline keys)."""
    stanzas: list[dict[str, str]] = [{}]
    last = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
        elif line[0] in " \t":
            if last in stanzas[-1]:
                stanzas[-1][last] += "\n" + line
        else:
            name, _, value = line.partition(":")
            last = name.strip().lower()
            stanzas[-1][last] = value.strip()
    return [stanza for stanza in stanzas if stanza]


def _is_public(uri: str) -> bool:
    """Whether a sprite, which sees the public network only, can use ``uri``."""
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or parts.username or parts.password:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_LOCAL_DOMAINS)
