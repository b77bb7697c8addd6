"""TCP connections into the sprite, each over a WebSocket of its own.

The client's first message names the target; from the answer on, binary messages are the bytes, both
ways. The end of the client's bytes is its close; the end of the program's bytes closes the socket.
A client that asks for ``half_close`` can say more: a text message ``{"type":"eof"}``, from either side,
is the end of that side's bytes alone, and the socket is closed when both have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from spriggan.pilot.network import Network

CHUNK = 64 << 10
FIRST_MESSAGE_TIMEOUT_S = 30.0
MAX_FIRST_MESSAGE = 4096
COMING_PATIENCE_S = 5.0  # for a service that is being started to listen
RETRY_S = 0.1
FAREWELL_S = 10.0  # for a program to finish with what a client sent before it left
EOF = '{"type":"eof"}'
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


@dataclass(frozen=True)
class Target:
    """Where a client wants to be connected."""

    host: str
    port: int
    half_close: bool


class Proxy:
    """The proxy endpoint of one sprite. ``coming`` tells whether a service is to listen on a port soon."""

    def __init__(self, network: Network, coming: Callable[[int], bool]) -> None:
        self._network = network
        self._coming = coming

    def routes(self) -> list[BaseRoute]:
        return [WebSocketRoute("/proxy", self.serve)]

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one connection."""
        await websocket.accept()
        try:
            async with asyncio.timeout(FIRST_MESSAGE_TIMEOUT_S):
                target = _target(await websocket.receive_text())
        except WebSocketDisconnect:
            return
        except (ValueError, KeyError, TimeoutError) as error:
            words = str(error) if type(error) is ValueError else "the first message must be text"
            await _refuse(websocket, words, 'send {"host": "localhost", "port": 8080} as text first')
            return
        try:
            connection = await self._connect(target)
        except OSError as error:
            reason = error.strerror or str(error) or "it does not answer"
            hint = "is anything listening there? an address other than localhost is as seen from the sprite"
            await _refuse(websocket, f"cannot connect to {target.host} port {target.port}: {reason}", hint)
            return
        with connection:
            address, port = connection.getpeername()[:2]
            shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            answer = {"status": "connected", "target": shown, "half_close": target.half_close}
            with contextlib.suppress(WebSocketDisconnect):
                await websocket.send_text(json.dumps(answer))
                await _Connection(websocket, connection, half_close=target.half_close).carry()

    async def _connect(self, target: Target) -> socket.socket:
        """Connect, waiting a moment for a service that is just being started. Raises ``OSError``."""
        deadline = asyncio.get_running_loop().time() + COMING_PATIENCE_S
        while True:
            try:
                return await self._network.connect(target.host, target.port)
            except ConnectionRefusedError:
                if not self._coming(target.port) or asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(RETRY_S)


class _Connection:
    """Both directions of one connection. In each, one message is under way at a time: who reads slowly
    makes the other side wait.
    """

    def __init__(self, websocket: WebSocket, connection: socket.socket, *, half_close: bool) -> None:
        self._websocket = websocket
        self._connection = connection
        self._half_close = half_close
        self._input_over = asyncio.Event()  # the client has said that no more bytes come

    async def carry(self) -> None:
        """Move bytes until it is over."""
        up = asyncio.create_task(self._up())
        down = asyncio.create_task(self._down())
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                down.cancel()
                await asyncio.gather(down, return_exceptions=True)
                await self._leave(orderly=up.result())
            else:
                await self._finish(up, down)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _up(self) -> bool:
        """From the client to the program, until the client leaves; whether it took its leave."""
        loop = asyncio.get_running_loop()
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                # uvicorn gives a reason, if only an empty one, exactly where the client sent a close.
                return "reason" in message
            if (data := message.get("bytes")) and not self._input_over.is_set():
                try:
                    await loop.sock_sendall(self._connection, data)
                except OSError:
                    self._input_over.set()  # the program takes no more; what it says still counts
            elif message.get("text") == EOF and self._half_close:
                self._end_input()

    async def _down(self) -> None:
        """From the program to the client, until it has no more to say. Raises ``OSError`` if it breaks off."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._connection, CHUNK):
            await self._websocket.send_bytes(data)

    async def _finish(self, up: asyncio.Task[bool], down: asyncio.Task[None]) -> None:
        """The program has ended its side."""
        error = down.exception()
        if isinstance(error, WebSocketDisconnect):
            return
        if error is not None:
            await self._websocket.close(1011, "the connection broke off")
            return
        if self._half_close:
            await self._websocket.send_text(EOF)
            over = asyncio.create_task(self._input_over.wait())
            try:
                await asyncio.wait((up, over), return_when=asyncio.FIRST_COMPLETED)
            finally:
                over.cancel()
        if not up.done():
            await self._websocket.close(1000)

    async def _leave(self, *, orderly: bool) -> None:
        """The client has gone. One that took its leave had said all; else the program must not think so."""
        if not orderly:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            return
        self._end_input()
        loop = asyncio.get_running_loop()
        # To close with something unread would reset the connection under what is still being read there.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(FAREWELL_S):
                while await loop.sock_recv(self._connection, CHUNK):
                    continue

    def _end_input(self) -> None:
        self._input_over.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)


def _target(text: str) -> Target:
    """Read a client's first message. Raises ``ValueError`` with what is wrong with it."""
    if len(text) > MAX_FIRST_MESSAGE:
        raise ValueError("the first message is too long")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the first message is not JSON") from error
    if not isinstance(data, dict):
        raise ValueError("the first message is not an object")
    host, port = data.get("host") or "localhost", data.get("port")
    if not isinstance(host, str):
        raise ValueError("host is not a string")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise ValueError("port is not a number from 1 to 65535")
    return Target(host, port, data.get("half_close") is True)


async def _refuse(websocket: WebSocket, message: str, hint: str) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        refusal = {"status": "failed", "error": message, "message": message, "hint": hint}
        await websocket.send_text(json.dumps(refusal))
        await websocket.close(1011, message.encode()[:120].decode(errors="ignore"))
