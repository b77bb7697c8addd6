"""Clients that are gone while something is sent to them: that is how connections end, and no error."""

from __future__ import annotations

import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect


class Departures:
    """Ends a WebSocket's handler quietly when its client is gone.

    uvicorn says ``OSError`` of a client that left, as ASGI has it, but ``RuntimeError`` of one whose
    connection it closed itself because of what came (a frame that is none); here both are the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            try:
                await send(message)
            except RuntimeError as error:
                if message["type"] not in ("websocket.send", "websocket.close"):
                    raise
                raise OSError(str(error)) from error

        with contextlib.suppress(WebSocketDisconnect):
            await self.app(scope, receive, sending)
