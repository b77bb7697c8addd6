"""What an exec request asks for: its URL parameters, checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse

from spriggan.pilot.process import Process
from spriggan.wire.durations import parse_duration
from spriggan.wire.messages import MAX_TERMINAL
from spriggan.wire.spec import SpriteSpec

PATH = "/.sprite/bin:/home/sprite/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ARGUMENTS = 4096
MAX_BYTES = 128 * 1024  # of the whole command line and environment, as Linux takes at least
MAX_JSON_BODY = 64 * 1024
NON_TTY_LINGER_S = 10.0


class BadRequest(Exception):
    """A parameter that cannot be right (400)."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class ExecRequest:
    """A command to start."""

    process: Process
    tty: bool
    rows: int
    cols: int
    stdin: bool
    linger: float | None  # seconds to run on with nobody attached; None: for ever


def parse(query: QueryParams, spec: SpriteSpec) -> ExecRequest:
    """Read the parameters of ``/exec``. Raises ``BadRequest``."""
    tty = _flag(query, "tty")
    return ExecRequest(
        process=Process(
            argv=_argv(query, tty), env=_environment(query, spec, tty), cwd=_directory(query, spec)
        ),
        tty=tty,
        rows=_size(query, "rows", 24),
        cols=_size(query, "cols", 80),
        stdin=_flag(query, "stdin", default=True),
        linger=_linger(query, tty),
    )


def error_response(
    status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as every part of the API words it."""
    body = {"error": message, "message": message, "hint": hint}
    return JSONResponse(body, status_code=status, headers=headers)


async def json_body(request: Request, example: str) -> dict[str, Any]:
    """The body as a JSON object; no body is an empty one. Raises ``BadRequest`` with ``example`` as hint."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_JSON_BODY:
            raise BadRequest("the body is too long", example)
    try:
        data = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON", example) from error
    if not isinstance(data, dict):
        raise BadRequest("the body is not an object", example)
    return data


def _argv(query: QueryParams, tty: bool) -> list[str]:
    argv = query.getlist("cmd")
    path = query.get("path")
    if not argv:
        argv = [path or "bash", *(["-l"] if tty and not path else [])]
    elif path:
        # The runtime executes what is first, so a name that differs from the program's is lost.
        argv = [path, *argv[1:]]
    if len(argv) > MAX_ARGUMENTS or sum(len(part.encode()) for part in argv) > MAX_BYTES:
        raise BadRequest("the command line is too long", "pass large input by stdin or as a file")
    if any("\0" in part for part in argv) or not argv[0]:
        raise BadRequest("the command is empty or holds a NUL byte", "name the program first: cmd=ls&cmd=-la")
    return argv


def _environment(query: QueryParams, spec: SpriteSpec, tty: bool) -> dict[str, str]:
    home = "/root" if spec.user.name == "root" else f"/home/{spec.user.name}"
    environment = {
        "PATH": PATH,
        "HOME": home,
        "USER": spec.user.name,
        "LOGNAME": spec.user.name,
        "SHELL": spec.user.shell,
        "LANG": "C.UTF-8",
        **({"TERM": "xterm-256color"} if tty else {}),
        **spec.environment,
    }
    total = 0
    for entry in query.getlist("env"):
        name, equals, value = entry.partition("=")
        total += len(entry.encode())
        if not equals or not name or "\0" in entry:
            raise BadRequest(f"env {entry[:80]!r} is not NAME=VALUE", "write env=NAME%3DVALUE, once for each")
        environment[name] = value
    if total > MAX_BYTES:
        raise BadRequest("the environment is too large", "keep it below 128 KiB")
    return environment


def _directory(query: QueryParams, spec: SpriteSpec) -> str:
    directory = query.get("dir") or ("/root" if spec.user.name == "root" else f"/home/{spec.user.name}")
    if not directory.startswith("/") or "\0" in directory or len(directory) > 4096:
        raise BadRequest(f"dir {directory[:80]!r} is not an absolute path", "start it with /")
    return directory


def _size(query: QueryParams, name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= MAX_TERMINAL):
        raise BadRequest(
            f"{name} {text[:40]!r} is not a number from 1 to {MAX_TERMINAL}",
            f"leave {name} out for {default}",
        )
    return int(text)


def _flag(query: QueryParams, name: str, *, default: bool = False) -> bool:
    text = query.get(name)
    if text is None:
        return default
    if text.lower() in ("true", "1", ""):
        return True
    if text.lower() in ("false", "0"):
        return False
    raise BadRequest(f"{name} {text[:40]!r} is neither true nor false", f"write {name}=true or {name}=false")


def _linger(query: QueryParams, tty: bool) -> float | None:
    text = query.get("max_run_after_disconnect")
    if text is None:
        return None if tty or _flag(query, "detachable") else NON_TTY_LINGER_S
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise BadRequest(f"max_run_after_disconnect: {error}", "0 means for ever") from error
    if seconds < 0:
        raise BadRequest("max_run_after_disconnect is negative", "0 means for ever")
    return seconds or None
