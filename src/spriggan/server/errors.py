"""How an error reaches a client: the one table of status codes, and the one shape of a body.

Every body is ``{"error", "code", "message", "hint"}``. ``error`` is text for people: official
clients know some of these texts, and their file system part looks for phrases in it. ``message``
is the same, because they show it when there is one. ``code`` is stable for programs, and where
they look for it (``ENOENT`` and the like come from the pilot in this field). ``hint`` is the way out.
"""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from spriggan import errors


class Unauthenticated(errors.SprigganError):
    """No token, or none that is valid here (401)."""

    code = "unauthenticated"


class Forbidden(errors.SprigganError):
    """The token is valid, but not for this (403)."""

    code = "forbidden"


class TooLarge(errors.InvalidRequest):
    """More than this endpoint reads (413)."""

    code = "too_large"


class HeadTooLarge(errors.InvalidRequest):
    """A request line and headers longer than any use of them (431)."""

    code = "head_too_large"


class NoSuchEndpoint(errors.NotFound):
    """Nothing is served under that path (404)."""

    code = "no_such_endpoint"


class MethodNotAllowed(errors.InvalidRequest):
    """The path exists, for other methods (405)."""

    code = "method_not_allowed"


class BadGateway(errors.SprigganError):
    """What serves a sprite's URL does not answer, or not in HTTP (502)."""

    code = "bad_gateway"


STATUS: dict[type[errors.SprigganError], int] = {
    errors.InvalidRequest: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    errors.NotFound: 404,
    MethodNotAllowed: 405,
    errors.AlreadyExists: 409,
    errors.Conflict: 409,
    TooLarge: 413,
    errors.InvalidValue: 422,
    HeadTooLarge: 431,
    errors.Broken: 500,
    errors.MissingCapability: 501,
    BadGateway: 502,
    errors.Unavailable: 503,
    errors.LimitReached: 429,
    errors.NoSpace: 507,
    errors.SprigganError: 500,
}


class ErrorReply(BaseModel):
    """What every refused or failed request is answered with."""

    error: str = Field(description="What went wrong, for people.", examples=["sprite not found"])
    code: str = Field(description="Stable name of the kind of error.", examples=["not_found"])
    message: str = Field(
        description="The same as `error`: some clients show the one, some the other.",
        examples=["sprite not found"],
    )
    hint: str = Field(
        description="What to do about it; may be empty.", examples=["see what there is with: spriggan list"]
    )
    errors: list[str] | None = Field(
        default=None, description="Each thing that is wrong with the request, if there are several."
    )
    path: str | None = Field(default=None, description="The file that it is about, if it is about one.")
    limit: int | None = Field(default=None, description="With 429: how many are allowed.")
    current_count: int | None = Field(default=None, description="With 429: how many there are.")
    window_seconds: int | None = Field(default=None, description="With 429 for a rate: in this time.")
    retry_after_seconds: int | None = Field(default=None, description="With 429 for a rate: try again then.")


_CONTENT = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorReply.__name__}"}}}


def status_of(error: errors.SprigganError) -> int:
    """The status code of the nearest class in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def body_of(error: errors.SprigganError, *, each: list[str] | None = None) -> dict[str, Any]:
    """The JSON body that says ``error``."""
    body: dict[str, Any] = {
        "error": error.message,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }
    if each:
        body["errors"] = each
    if isinstance(error, errors.LimitReached):
        # Official clients look for this kind of error by its code, in this field.
        body |= {"error": error.code, "limit": error.limit, "current_count": error.count}
        body |= {"upgrade_available": False, "upgrade_url": ""}
    if isinstance(error, errors.RateLimited):
        body |= {"window_seconds": error.window_s, "retry_after_seconds": error.retry_after_s}
    return body


def error_response(
    error: errors.SprigganError, *, headers: dict[str, str] | None = None, each: list[str] | None = None
) -> JSONResponse:
    """The response that says ``error``."""
    more = dict(headers or {})
    if isinstance(error, Unauthenticated):
        more["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.Unavailable):
        more["Retry-After"] = "1"
    if isinstance(error, errors.RateLimited):
        more["Retry-After"] = str(error.retry_after_s)
        more |= rate_headers(error.limit, 0, error.retry_after_s)
    return JSONResponse(body_of(error, each=each), status_of(error), headers=more)


def rate_headers(limit: int, remaining: int, reset_s: int) -> dict[str, str]:
    """What is left of a rate; ``reset_s`` seconds from now all of it is there again."""
    return {
        "X-RateLimit-Limit": str(limit),
        "X-RateLimit-Remaining": str(remaining),
        "X-RateLimit-Reset": str(math.ceil(time.time() + reset_s)),
    }


def internal_error() -> errors.Broken:
    """What a client is told of a defect; the facts are in the server's log."""
    return errors.Broken(
        "the server made a mistake", hint="its log has the details; please report it with them"
    )


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an endpoint, for its OpenAPI description. 401 and 403 always belong.

    They name the model, and do not hand it to FastAPI, which would build a serializer for every one.
    """
    return {
        status: {"description": HTTPStatus(status).phrase, "content": _CONTENT}
        for status in sorted({401, 403, *statuses})
    }
