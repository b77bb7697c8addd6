"""What an exec request asks for: its URL parameters, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from spriggan.pilot.process import Process
from spriggan.wire.durations import format_duration, parse_duration
from spriggan.wire.messages import MAX_TERMINAL
from spriggan.wire.spec import SpriteSpec
from spriggan.wire.text import is_text

PATH = "/.sprite/bin:/home/sprite/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_ARGUMENTS = 4096
MAX_BYTES = 128 * 1024  # of the whole command line and environment, as Linux takes at least
MAX_JSON_BODY = 64 * 1024
NON_TTY_LINGER_S = 10.0
# What programs tell errors by; the server names its own in the same way.
_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    410: "gone",
    413: "too_large",
    503: "unavailable",
    507: "no_space",
}


Handler = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """A request that cannot be done; ``status`` is the HTTP status that says so."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint


class BadRequest(Refusal):
    """A parameter that cannot be right (400)."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(400, message, hint)


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
    tty = flag(query, "tty")
    program, argv = _command(query, tty)
    return ExecRequest(
        process=Process(
            argv=argv,
            env=_environment(query, spec, tty),
            cwd=_directory(query),
            program=program,
            any_shell="cmd" not in query and "path" not in query,
        ),
        tty=tty,
        rows=_size(query, "rows", 24),
        cols=_size(query, "cols", 80),
        stdin=flag(query, "stdin", default=tty),
        linger=_linger(query, tty),
    )


def default_environment(spec: SpriteSpec) -> dict[str, str]:
    """What every command of the sprite finds in its environment, beside the variables of its user."""
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        **spec.environment,
    }


def refusing(handler: Handler) -> Handler:
    """``handler``, with an answer to what it refuses, and to clients that leave before they have asked."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as error:
            return error_response(error.status, error.message, error.hint)
        except ClientDisconnect:
            return Response(status_code=499)

    return handle


def error_response(
    status: int, message: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as every part of the API words it."""
    body = {"error": message, "code": _CODES.get(status, "broken"), "message": message, "hint": hint}
    return JSONResponse(body, status_code=status, headers=headers)


def from_json(arguments: object) -> QueryParams:
    """Parameters that came as a JSON object, whose values are strings or lists of them.

    Raises ``BadRequest`` for what no URL could say.
    """
    if not isinstance(arguments, dict):
        raise BadRequest("args is not an object", 'send {"args": {"cmd": ["ls", "-la"]}}')
    pairs: list[tuple[str, str]] = []
    for name, value in arguments.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool):
                each = "true" if each else "false"
            if not isinstance(each, str | int | float) or not is_text(str(each)):
                raise BadRequest(
                    f"{name[:40]!r} is neither text nor a list of it", "write numbers as text, too"
                )
            pairs.append((name, str(each)))
    return QueryParams(pairs)


async def json_body(request: Request, example: str, limit: int = MAX_JSON_BODY) -> dict[str, Any]:
    """The body as a JSON object; no body is an empty one. Raises ``BadRequest`` with ``example`` as hint."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise BadRequest("the body is too long", example)
    try:
        data = json.loads(body or b"{}")
        # JSON can carry half a surrogate pair, which no argument, file or answer can.
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body is not JSON", example) from error
    if not isinstance(data, dict):
        raise BadRequest("the body is not an object", example)
    return data


def seconds(text: str | None, name: str, default: float, longest: float) -> float:
    """A parameter that is a duration such as ``5s``, or a number of seconds. Raises ``BadRequest``."""
    if text is None:
        return default
    try:
        found = float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else parse_duration(text)
    except ValueError as error:
        raise BadRequest(f"{name}: {error}", f"write {name}=5s") from error
    if not 0 <= found <= longest:
        raise BadRequest(
            f"{name} {text[:40]!r} is not from 0 to {format_duration(longest)}", f"write {name}=5s"
        )
    return found


def _command(query: QueryParams, tty: bool) -> tuple[str, list[str]]:
    """What to execute, and its arguments from its own name on."""
    argv = query.getlist("cmd")
    path = query.get("path")
    if not argv:
        argv = [path or "bash", *(["-l"] if tty and not path else [])]
    program = path or argv[0]
    if len(argv) > MAX_ARGUMENTS or sum(len(part.encode()) for part in [program, *argv]) > MAX_BYTES:
        raise BadRequest("the command line is too long", "pass large input by stdin or as a file")
    if any("\0" in part for part in [program, *argv]) or not program:
        raise BadRequest("the command is empty or holds a NUL byte", "name the program first: cmd=ls&cmd=-la")
    return program, argv


def _environment(query: QueryParams, spec: SpriteSpec, tty: bool) -> dict[str, str]:
    environment = {**({"TERM": "xterm-256color"} if tty else {}), **default_environment(spec)}
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


def _directory(query: QueryParams) -> str:
    directory = query.get("dir") or ""
    if not directory:
        return ""
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


def flag(query: QueryParams, name: str, *, default: bool = False) -> bool:
    """A parameter that is true or false. Raises ``BadRequest``."""
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
        return None if tty or flag(query, "detachable") else NON_TTY_LINGER_S
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise BadRequest(f"max_run_after_disconnect: {error}", "0 means for ever") from error
    if seconds < 0:
        raise BadRequest("max_run_after_disconnect is negative", "0 means for ever")
    return seconds or None
