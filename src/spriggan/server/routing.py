"""What all endpoints with a JSON body have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from spriggan.engine import Engine

# The largest legitimate body is an environment of 64 KiB in a create request.
MAX_BODY = 1 << 20


async def _engine(request: Request) -> Engine:
    # Were it a plain function, FastAPI would call it in a thread, for every request.
    engine: Engine = request.app.state.engine
    return engine


EngineOf = Annotated[Engine, Depends(_engine)]
SpriteName = Annotated[str, Path(description="The sprite's name.", examples=["dev"])]


class _BoundedRequest(Request):
    """A request whose body ends at ``MAX_BODY`` and is text all through."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            body = bytearray()
            async for chunk in self.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise HTTPException(413)
            self._body = bytes(body)
        return self._body

    async def json(self) -> Any:
        parsed = await super().json()
        try:
            # JSON can carry half a surrogate pair, which no name, file or answer can.
            json.dumps(parsed, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise HTTPException(400) from error
        return parsed


class BoundedRoute(APIRoute):
    """A route that does not read a body without end into memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(_BoundedRequest(request.scope, request.receive))

        return bounded


def router(*, prefix: str, tag: str) -> APIRouter:
    """A router for endpoints with JSON bodies."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=BoundedRoute)
