"""Responses that a sprite's pilot gives, and their descriptions."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spriggan.engine import Engine
from spriggan.server.errors import failures
from spriggan.server.forward import forward

BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
OBJECT: dict[str, Any] = {"schema": {"type": "object"}}


def parameters(**described: str) -> dict[str, Any]:
    """Query parameters for the description; the pilot is who reads them."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in described.items()
        ]
    }


def body(**described: str) -> dict[str, Any]:
    """The fields of a JSON body for the description; the pilot is who reads them."""
    fields = {name: {"description": text} for name, text in described.items()}
    return {
        "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": fields}}}}
    }


def answers(description: str, media_type: str, content: dict[str, Any], *errors: int) -> dict[int | str, Any]:
    return {
        200: {"description": description, "content": {media_type: content}},
        **failures(404, 503, *errors),
    }


class Answer(Response):
    """A response that is the pilot's, for as long as it lasts holding the sprite awake.

    ``path`` is the pilot's path, made from what was matched and never from the URL as it
    came, in which an encoded slash could mean another endpoint.
    """

    def __init__(self, engine: Engine, name: str, path: str, *, gap: float = 0.0) -> None:
        super().__init__()
        self._gap = gap
        self._engine = engine
        self._name = name
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query: bytes = scope["query_string"]
        target = self._path.encode() + (b"?" + query if query else b"")
        async with self._engine.awake(self._name, f"{scope['method']} {self._path}") as awake:
            await forward(scope, receive, send, socket=awake.pilot_socket, target=target, gap=self._gap)
