"""Responses that a sprite's pilot gives."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spriggan.engine import Engine
from spriggan.server.forward import forward


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
