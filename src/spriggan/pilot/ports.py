"""Ports of the sprite that somebody listens on, watched for as long as somebody wants to know."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from spriggan.linux.listeners import Listener
from spriggan.pilot.network import Network
from spriggan.pilot.together import until_one_ends

POLL_S = 0.5  # the kernel tells nobody when a socket begins to listen

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Port:
    """A port with a listener. ``pid`` is the sprite's number of the process, if it is known."""

    number: int
    address: str
    pid: int | None

    def message(self, kind: str) -> dict[str, object]:
        """What clients are sent; ``kind`` is ``port_opened`` or ``port_closed``."""
        known = {} if self.pid is None else {"pid": self.pid}
        return {"type": kind, "port": self.number, "address": self.address, **known}


class Ports:
    """The open ports of one sprite."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._open: dict[int, tuple[Listener, Port]] = {}
        self._changed = asyncio.Event()
        self._watchers = 0
        self._polling: asyncio.Task[None] | None = None

    def routes(self) -> list[BaseRoute]:
        return [WebSocketRoute("/ports/watch", self.watch)]

    async def now(self) -> list[Port]:
        """The ports that are open, by number. Raises ``OSError``."""
        await self._look()
        return [port for _, (_, port) in sorted(self._open.items())]

    async def changes(self, known: list[Port]) -> AsyncIterator[dict[str, object]]:
        """Yield ``port_opened`` and ``port_closed`` messages from ``known`` on, for as long as it is iterated.

        A port that closes and opens again between two looks was never closed.
        """
        seen = {port.number: port for port in known}
        self._watchers += 1
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll())
        try:
            while True:
                changed = self._changed
                current = {number: port for number, (_, port) in self._open.items()}
                for number in sorted(seen.keys() | current.keys()):
                    if seen.get(number) != current.get(number):
                        if number in seen:
                            yield seen[number].message("port_closed")
                        if number in current:
                            yield current[number].message("port_opened")
                seen = current
                await changed.wait()
        finally:
            self._watchers -= 1
            if self._watchers == 0 and self._polling is not None:
                self._polling.cancel()
                self._polling = None

    async def watch(self, websocket: WebSocket) -> None:
        """All open ports in the first message, then one for each change."""
        await websocket.accept()
        known = await self.now()
        opened = [port.message("port_opened") for port in known]
        await websocket.send_text(json.dumps({"type": "port_list", "ports": opened}))
        await until_one_ends(self._send(websocket, known), _until_gone(websocket))

    async def _send(self, websocket: WebSocket, known: list[Port]) -> None:
        async for message in self.changes(known):
            await websocket.send_text(json.dumps(message))

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._look()
            except OSError as error:
                log.warning("open ports cannot be seen: %s", error)

    async def _look(self) -> None:
        """Bring ``_open`` up to date. Of several listeners on a port the first counts."""
        found: dict[int, Listener] = {}
        for listener in await self._network.listeners():
            found.setdefault(listener.port, listener)
        current = {}
        for number, listener in found.items():
            before = self._open.get(number)
            if before is not None and before[0] == listener:
                current[number] = before
            else:
                pid = await self._network.owner(listener)
                current[number] = (listener, Port(number, listener.address, pid))
        if current != self._open:
            self._open = current
            self._changed.set()
            self._changed = asyncio.Event()


async def _until_gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        continue
