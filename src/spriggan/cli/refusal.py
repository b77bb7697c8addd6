"""What the server says when it refuses, over HTTP or instead of a WebSocket."""

from __future__ import annotations

import json

from spriggan.cli.endpoint import Endpoint
from spriggan.errors import SprigganError


class Refused(SprigganError):
    """The server answered with an error."""

    def __init__(self, status: int, message: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


def refusal(status: int, text: str, endpoint: Endpoint) -> Refused:
    """The error that an answer with status >= 400 stands for."""
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return Refused(
            status,
            f"{endpoint} answered with status {status} and no reason",
            "is a Spriggan server listening there?",
        )
    errors = body.get("errors")
    listed = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
    message = str(
        body.get("message") or listed or body.get("error") or f"the server answered with status {status}"
    )
    hint = str(body.get("hint") or "")
    if status == 401 and endpoint.remembered:
        hint = f"give another token: spriggan login {endpoint.url}"
    elif status == 401 and not hint:
        hint = "check SPRITE_TOKEN; 'spriggan token create' on the server's machine makes a new token"
    return Refused(status, message, hint)
