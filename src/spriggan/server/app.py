"""The HTTP application: what is served, who may ask, and how every refusal looks."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from pydantic.json_schema import models_json_schema
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spriggan import __version__
from spriggan.engine import Engine
from spriggan.errors import InvalidRequest, SprigganError, Unavailable
from spriggan.server import host, tokens, version
from spriggan.server.auth import Authenticated
from spriggan.server.errors import (
    ErrorReply,
    MethodNotAllowed,
    NoSuchEndpoint,
    TooLarge,
    error_response,
    internal_error,
)
from spriggan.server.routing import MAX_BODY
from spriggan.server.sprites import checkpoints, pilot, pilot_models, policies, services, sprites
from spriggan.server.sprites.models import ChangeReply, Event

DESCRIPTION = """\
Persistent Linux computers on your own machines. The paths under `/v1/sprites` are those of the
Sprites API, so that its official clients work unchanged; what is ours is marked as an *extension*.

Every error is JSON with `error` (text), `code` (stable), `message` and `hint`. Streams are NDJSON:
one JSON object a line, the last one of type `complete` or `error`.
"""

REF = "#/components/schemas/{model}"


def create_app(engine: Engine) -> ASGIApp:
    """The API, for those who may ask."""
    return Versioned(Authenticated(api(engine), engine))


def api(engine: Engine) -> FastAPI:
    """All endpoints, without the checks of who is asking."""
    bearer = HTTPBearer(auto_error=False, description="A token made with `spriggan token create`.")
    app = _Api(
        title="Spriggan",
        version=__version__,
        description=DESCRIPTION,
        # The interactive pages load scripts from elsewhere; the description is what tools need.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Checked by Authenticated; here so that it is described.
        dependencies=[Security(bearer)],
        exception_handlers={
            SprigganError: _refused,
            RequestValidationError: _invalid,
            HTTPException: _no_endpoint,
            Exception: _defect,
        },
    )
    app.state.engine = engine
    for part in (sprites, checkpoints, policies, services, pilot, host, tokens):
        app.include_router(part.router)
    return app


class Versioned:
    """Puts ``Sprite-Version`` on every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[version.HEADER] = version.sprite_version()
            await send(message)

        await self.app(scope, receive, versioned)


class Farewell:
    """Answers what a server that ends cuts off."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noticed(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, noticed)
        except asyncio.CancelledError:
            # Only uvicorn cancels, at the end of its patience. A response that has begun is cut,
            # which its client notices.
            if not started:
                ending = Unavailable(
                    "the server is stopping", hint="sprites go on; try again when it is back"
                )
                said = error_response(ending, headers={version.HEADER: version.sprite_version()})
                await said(scope, receive, send)


class _Api(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """FastAPI's description without the errors of its own, which ours take the place of, and with the
        models that it does not see: those of errors, of streams and of what a pilot answers.
        """
        if self.openapi_schema is None:
            described = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            for methods in described["paths"].values():
                for operation in methods.values():
                    answer = operation["responses"].get("422", {})
                    if "HTTPValidationError" in str(answer):
                        del operation["responses"]["422"]
            schemas = described["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            _, streamed = models_json_schema(
                [(model, "serialization") for model in (ErrorReply, Event, ChangeReply)], ref_template=REF
            )
            _, sent = models_json_schema(
                [(model, "validation") for model in pilot_models.ALL], ref_template=REF
            )
            schemas.update(streamed["$defs"] | sent["$defs"])
            self.openapi_schema = described
        return self.openapi_schema


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, SprigganError)  # noqa: S101 - registered for it alone
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    wrong = [_sentence(found) for found in error.errors()]
    hint = "/openapi.json describes what is taken here"
    if any(found["type"] == "json_invalid" for found in error.errors()):
        hint = "the body must be one JSON object"
    elif any(found["loc"] == ("body",) for found in error.errors()):
        hint = "send a JSON object with 'Content-Type: application/json'"
        if request.method == "POST" and request.url.path == "/v1/sprites":
            wrong = ["name is required"]  # clients know this text
    message = "; ".join(wrong)
    return error_response(InvalidRequest(message, hint=hint), each=wrong if len(wrong) > 1 else None)


def _sentence(found: dict[str, Any]) -> str:
    """One thing that is wrong, with its place in the request; what was sent is not repeated."""
    if found["type"] == "json_invalid":
        return f"the body is not JSON: {found['ctx']['error']}"
    where = ".".join(str(part) for part in found["loc"][1:]) or "the body"
    if found["type"] == "missing":
        return f"{where} is required"
    text = str(found["msg"])
    return f"{where}: {text[:1].lower()}{text[1:]}"


async def _no_endpoint(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, of which a client cannot tell that they are not ours."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    if error.status_code == 404:
        return error_response(NoSuchEndpoint("nothing is served under this path", hint="see /openapi.json"))
    if error.status_code == 405:
        refusal = MethodNotAllowed(f"{request.method} is not for this path", hint="see /openapi.json")
        return error_response(refusal, headers=dict(error.headers or {}))
    if error.status_code == 413:
        return error_response(
            TooLarge(f"the body is larger than {MAX_BODY >> 20} MiB", hint="upload files with PUT …/fs/write")
        )
    return error_response(InvalidRequest("the body cannot be read", hint="the body must be one JSON object"))


async def _defect(request: Request, error: Exception) -> Response:
    """uvicorn writes the error to the log."""
    return error_response(internal_error())
