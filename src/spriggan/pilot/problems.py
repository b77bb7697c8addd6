"""What a request can be refused for, and how the refusal is written.

The pilot stands alone, so it has its own small error type instead of ``spriggan.errors``.
"""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

log = logging.getLogger(__name__)


class Problem(Exception):
    """A request that cannot be served: what is wrong, and the way out."""

    def __init__(self, status: int, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.hint = hint

    def response(self) -> Response:
        body = {"error": self.code, "message": self.message, "hint": self.hint}
        return JSONResponse(body, self.status)


def invalid(message: str, *, hint: str = "") -> Problem:
    """What was given cannot be right."""
    return Problem(400, "invalid_request", message, hint=hint)


def not_running() -> Problem:
    """The container is down or between two lives."""
    return Problem(
        503, "unavailable", "the sprite is not running right now", hint="try again in a moment: it may be restarting"
    )


async def answer_problem(connection: HTTPConnection, error: Exception) -> Response | None:
    """Exception handler of both apps, for HTTP requests and for WebSockets not yet accepted."""
    if isinstance(error, Problem):
        response = error.response()
    elif isinstance(error, HTTPException):
        response = _from_status(error)
    else:
        log.error("%s failed", connection.url.path, exc_info=error)
        response = Problem(
            500, "broken", "the pilot failed on this request", hint="the pilot's log has the details"
        ).response()
    if isinstance(connection, WebSocket):
        await connection.send_denial_response(response)
        return None
    return response


def _from_status(error: HTTPException) -> Response:
    hint = "see the API reference for the endpoints of a sprite"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    response = Problem(error.status_code, code, str(error.detail), hint=hint).response()
    response.headers.update(error.headers or {})
    return response
