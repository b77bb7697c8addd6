"""Parameters of a request, out of its query string or a JSON body, checked one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from spriggan.pilot.problems import Problem, invalid
from spriggan.wire.durations import parse_duration

MAX_FIELDS = 20_000
MAX_JSON_BODY = 64 * 1024

_TRUE = frozenset(("1", "t", "true", "yes", "on"))
_FALSE = frozenset(("0", "f", "false", "no", "off", ""))


class Parameters:
    """Named values, each a list because a name may be repeated."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    @classmethod
    def from_query(cls, query: bytes) -> Parameters:
        """Read a query string. Bytes that are not UTF-8 are kept, as file names need them."""
        try:
            pairs = parse_qsl(
                query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape", max_num_fields=MAX_FIELDS
            )
        except ValueError as error:
            raise invalid(f"the query has more than {MAX_FIELDS} parameters") from error
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return cls(values)

    def with_json(self, body: Mapping[str, Any]) -> Parameters:
        """These parameters, with the members of a JSON object added where the query has none."""
        values = dict(self._values)
        for name, value in body.items():
            if name in values or value is None:
                continue
            if isinstance(value, bool):
                values[name] = [str(value).lower()]
            elif isinstance(value, str | int | float):
                values[name] = [str(value)]
            else:
                raise invalid(f"{name} in the body must be text, a number, true or false")
        return Parameters(values)

    def has(self, name: str) -> bool:
        return name in self._values

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def text(self, name: str, default: str = "") -> str:
        """The last value of ``name``: what repeats a parameter means to change it."""
        values = self._values.get(name)
        return values[-1] if values else default

    def flag(self, name: str, default: bool = False) -> bool:
        if not self.has(name):
            return default
        text = self.text(name).lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise invalid(f"{name} must be true or false, not {_shown(text)}")

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        text = self.text(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and least <= int(text) <= most):
            raise invalid(f"{name} must be a whole number from {least} to {most}, not {_shown(text)}")
        return int(text)

    def duration(self, name: str, default: float) -> float:
        """Seconds out of a Go duration."""
        text = self.text(name)
        if not text:
            return default
        try:
            seconds = parse_duration(text)
        except ValueError as error:
            raise invalid(f"{name}: {error}", hint=f"for example {name}=10s") from error
        if seconds < 0:
            raise invalid(f"{name} must not be negative")
        return seconds


async def json_body(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object; an empty body is an empty object."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_JSON_BODY:
            raise Problem(413, "too_large", f"the body is larger than {MAX_JSON_BODY // 1024} KiB")
    if not body.strip():
        return {}
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid("the body is not JSON", hint="send a JSON object, or leave the body empty") from error
    if not isinstance(data, dict):
        raise invalid("the body must be a JSON object")
    return data


def _shown(text: str) -> str:
    return repr(text[:64])
