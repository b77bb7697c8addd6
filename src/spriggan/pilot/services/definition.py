"""What a service is: the definition that a client gives, checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spriggan.pilot.request import BadRequest

MAX_SERVICES = 100
MAX_ARGUMENTS = 1024
MAX_BYTES = 128 * 1024  # of arguments and environment, as Linux takes at least
MAX_PATH = 4096
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
EXAMPLE = 'for example {"cmd": "python3", "args": ["-m", "http.server", "8000"], "http_port": 8000}'


@dataclass(frozen=True)
class Definition:
    """One service as it is kept on the disk."""

    name: str
    cmd: str
    args: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    dir: str | None = None
    needs: list[str] = field(default_factory=list)
    http_port: int | None = None
    stopped: bool = False  # by a user, until a user starts it

    def to_json(self) -> dict[str, Any]:
        """The definition as clients see it."""
        return {
            "name": self.name,
            "cmd": self.cmd,
            "args": self.args,
            "env": self.env,
            "dir": self.dir,
            "needs": self.needs,
            "http_port": self.http_port,
        }


def parse(name: str, data: Mapping[str, Any]) -> Definition:
    """Read a definition. Raises ``BadRequest``; that its needs exist is for ``Services`` to say."""
    check_name(name)
    cmd = data.get("cmd")
    if not isinstance(cmd, str) or not cmd or "\0" in cmd:
        raise BadRequest("cmd is required: the program to run, without its arguments", EXAMPLE)
    args = _strings(data, "args")
    env = _environment(data.get("env"))
    size = len(cmd.encode()) + sum(len(each.encode()) for each in args)
    if len(args) > MAX_ARGUMENTS or size > MAX_BYTES:
        raise BadRequest("the command line is too long", "put a long script into a file")
    return Definition(
        name=name,
        cmd=cmd,
        args=args,
        env=env,
        dir=_directory(data.get("dir")),
        needs=_needs(name, data),
        http_port=_port(data.get("http_port")),
    )


def check_name(name: str) -> None:
    """Raise ``BadRequest`` if no service can have this name."""
    if not NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is not a name for a service",
            "use letters, digits, '.', '_' and '-', at most 63, and begin with a letter or digit",
        )


def _strings(data: Mapping[str, Any], key: str) -> list[str]:
    value = data.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise BadRequest(f"{key} is not a list of strings", EXAMPLE)
    return list(value)


def _environment(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("env is not an object", 'for example {"env": {"PORT": "3000"}}')
    size = 0
    for name, text in value.items():
        if not name or "=" in name or "\0" in name or not isinstance(text, str) or "\0" in text:
            raise BadRequest(
                f"env {name[:80]!r} is not a name with a string", 'for example {"env": {"PORT": "3000"}}'
            )
        size += len(name.encode()) + len(text.encode())
    if size > MAX_BYTES:
        raise BadRequest("the environment is too large", "keep it below 128 KiB")
    return dict(value)


def _directory(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value or len(value) > MAX_PATH:
        raise BadRequest("dir is not an absolute path", 'for example {"dir": "/home/sprite/app"}')
    return value


def _needs(name: str, data: Mapping[str, Any]) -> list[str]:
    needs = list(dict.fromkeys(_strings(data, "needs")))
    for each in needs:
        check_name(each)
        if each == name:
            raise BadRequest(f"{name} cannot need itself", "needs names services that start before this one")
    return needs


def _port(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise BadRequest("http_port is not a port number", "use a number from 1 to 65535, or null")
    return value
