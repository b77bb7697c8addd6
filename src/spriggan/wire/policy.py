"""What a sprite may reach and what its commands may do: rules that are set from outside.

The server checks and keeps them, the pilot enforces them, so both read them with this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAX_RULES = 1000
ACTIONS = ("allow", "deny")
PROFILES = ("", "minimal", "standard", "privileged")
DEVICES = ("/dev/fuse", "/dev/net/tun")

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")

# What developers' tools fetch from. Each stands for itself and everything below it.
DEFAULTS = (
    # source code
    "github.com", "githubusercontent.com", "githubassets.com", "ghcr.io", "gitlab.com", "bitbucket.org",
    # packages
    "npmjs.org", "npmjs.com", "yarnpkg.com", "nodejs.org", "pypi.org", "pythonhosted.org", "python.org",
    "rubygems.org", "ruby-lang.org", "crates.io", "rust-lang.org", "rustup.rs", "golang.org", "go.dev",
    "maven.org", "apache.org", "packagist.org", "hex.pm", "debian.org", "ubuntu.com", "alpinelinux.org",
    # container images
    "docker.io", "docker.com", "quay.io", "gcr.io", "registry.k8s.io",
    # clouds
    "amazonaws.com", "googleapis.com", "azure.com", "windows.net", "cloudflare.com",
    "digitaloceanspaces.com", "fly.io", "fly.dev",
    # language models
    "anthropic.com", "claude.ai", "openai.com", "mistral.ai", "cohere.com", "groq.com", "huggingface.co",
    "openrouter.ai", "x.ai",
)  # fmt: skip


class BadPolicy(ValueError):
    """A policy that says nothing clear; the text says where."""


class NetworkPolicy:
    """Rules on names. The closest rule decides: the name itself, then the nearest ``*.`` above it,
    then ``*``. Without any rule everything is allowed; with some, what none fits is denied.
    """

    def __init__(self, rules: list[Mapping[str, Any]]) -> None:
        """Raises ``BadPolicy``."""
        if len(rules) > MAX_RULES:
            raise BadPolicy(f"{len(rules)} rules are too many; at most {MAX_RULES}")
        self.unrestricted = not rules
        self._exact: dict[str, bool] = {}
        self._below: dict[str, bool] = {}  # key "" is the rule for "*"
        defaults = False
        for number, rule in enumerate(rules):
            where = f"rules[{number}]"
            if not isinstance(rule, Mapping):
                raise BadPolicy(f"{where} is not an object")
            if set(rule) == {"include"}:
                if rule["include"] != "defaults":
                    raise BadPolicy(f'{where}: the only thing to include is "defaults"')
                defaults = True
            elif set(rule) == {"domain", "action"}:
                self._add(where, rule["domain"], rule["action"])
            else:
                raise BadPolicy(f'{where} needs "domain" and "action", or "include"')
        for domain in DEFAULTS if defaults else ():
            self._exact.setdefault(domain, True)
            self._below.setdefault(domain, True)

    def allows(self, name: str) -> bool:
        """Whether a sprite may ask for ``name`` and reach what it stands for."""
        if self.unrestricted:
            return True
        name = name.lower().removesuffix(".")
        if name in self._exact:
            return self._exact[name]
        above = name
        while above:
            _, _, above = above.partition(".")
            if above in self._below:
                return self._below[above]
        return False

    def _add(self, where: str, domain: object, action: object) -> None:
        if action not in ACTIONS:
            raise BadPolicy(f"{where}: action is {' or '.join(ACTIONS)}")
        if not isinstance(domain, str):
            raise BadPolicy(f"{where}: domain is not text")
        table, key = self._exact, _name(domain)
        if domain == "*":
            table, key = self._below, ""
        elif domain.startswith("*."):
            table, key = self._below, _name(domain[2:])
        if key is None:
            raise BadPolicy(f"{where}: {domain[:80]!r} is no domain; write example.org, *.example.org or *")
        if table.setdefault(key, action == "allow") != (action == "allow"):
            raise BadPolicy(f"{where}: {domain} is both allowed and denied")


def check_privileges(given: Mapping[str, Any]) -> None:
    """Raise ``BadPolicy`` unless ``given`` is ``{"profile"?, "devices"?, "noNewPrivileges"?}``."""
    if unknown := set(given) - {"profile", "devices", "noNewPrivileges"}:
        raise BadPolicy(f"unknown field {sorted(unknown)[0][:80]!r}")
    if given.get("profile", "") not in PROFILES:
        raise BadPolicy('profile is "minimal", "standard", "privileged" or empty')
    devices = given.get("devices", [])
    if not isinstance(devices, list) or any(device not in DEVICES for device in devices):
        raise BadPolicy(f"devices is a list of: {', '.join(DEVICES)}")
    if not isinstance(given.get("noNewPrivileges", False), bool):
        raise BadPolicy("noNewPrivileges is true or false")


def _name(domain: str) -> str | None:
    """``domain`` as it is in DNS, in lower case, or None if it can be no name."""
    try:
        name = domain.removesuffix(".").encode("idna").decode().lower()
    except UnicodeError:
        return None
    good = 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))
    return name if good else None
