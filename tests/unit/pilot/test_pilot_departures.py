"""A client that is gone ends its handler; a mistake of ours is still seen."""

from __future__ import annotations

import pytest
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from spriggan.pilot.departures import Departures

SCOPE: Scope = {"type": "websocket", "path": "/", "headers": []}


async def talk(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    await socket.send_text("to whom?")
    raise AssertionError("nobody is there")


async def connected() -> Message:
    return {"type": "websocket.connect"}


@pytest.mark.parametrize("error", [RuntimeError, OSError])
async def test_a_client_that_is_gone(error: type[Exception]) -> None:
    async def send(message: Message) -> None:
        if message["type"] == "websocket.send":
            raise error("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.")

    await Departures(talk)(SCOPE, connected, send)


async def test_mistakes_are_seen() -> None:
    async def send(message: Message) -> None:
        raise RuntimeError("not now")

    with pytest.raises(RuntimeError, match="not now"):
        await Departures(talk)(SCOPE, connected, send)

    async def twice(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.close()
        await socket.close()

    async def ignore(message: Message) -> None:
        pass

    with pytest.raises(RuntimeError, match="close"):
        await Departures(twice)(SCOPE, connected, ignore)
