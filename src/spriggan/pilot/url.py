"""Connections for the sprite's URL: to the service with an HTTP port, else to port 8080.

Made here, where the sprite's network is, and handed to the server as a descriptor: what goes over it is
the server's business, and costs the pilot nothing. The descriptor comes with an interim response, for it
has to come with bytes.
"""

from __future__ import annotations

import asyncio
import os
import socket

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spriggan.pilot.network import Network
from spriggan.pilot.request import Refusal, refusing
from spriggan.pilot.services.service import Service, Status
from spriggan.pilot.services.services import Services

PORT = 8080
PATIENCE_S = 30.0  # for a service that is being started to listen
RETRY_S = 0.05
_INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - nobody listens there because of this


class Url:
    """The endpoint of one sprite. Its server's protocol puts the ``transport`` into the request's state."""

    def __init__(self, network: Network, services: Services) -> None:
        self._network = network
        self._services = services

    def routes(self) -> list[BaseRoute]:
        return [Route("/pilot/connect", refusing(self.connect), methods=["POST"])]

    async def connect(self, request: Request) -> Response:
        """Connect, starting the service first if nobody stopped it on purpose."""
        service = self._services.with_http_port()
        if service is not None and not service.active and not service.definition.stopped:
            await self._services.start(service)
        port = PORT if service is None else service.definition.http_port or PORT
        with await self._dial(port, service) as connection:
            fileno = request.state.transport.get_extra_info("socket").fileno()
            with socket.socket(fileno=os.dup(fileno)) as server:
                # Nothing has been answered yet, so there is room for this.
                socket.send_fds(server, [_INTERIM], [connection.fileno()])
        return JSONResponse({"port": port})

    async def _dial(self, port: int, service: Service | None) -> socket.socket:
        """Connect, waiting for a service that is just being started. Raises ``Refusal``."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            try:
                return await self._connect(port)
            except ConnectionRefusedError as error:
                waits = self._services.fresh() if service is None else service.status is Status.STARTING
                if not waits or asyncio.get_running_loop().time() >= deadline:
                    raise Refusal(502, *_why_not(port, service)) from error
            except OSError as error:
                reason = error.strerror or "it does not answer"
                raise Refusal(
                    502, f"cannot connect to port {port} of the sprite: {reason}", "try again in a moment"
                ) from error
            await asyncio.sleep(RETRY_S)

    async def _connect(self, port: int) -> socket.socket:
        """Connect to whoever listens on ``port``, on whichever address. Raises ``OSError``."""
        try:
            return await self._network.connect("localhost", port)
        except ConnectionRefusedError:
            for listener in await self._network.listeners():
                if listener.port == port and listener.address not in _ANYWHERE:
                    return await self._network.connect(listener.address, port)
            raise


def _why_not(port: int, service: Service | None) -> tuple[str, str]:
    """Why nobody listens on ``port``, and what to do about it."""
    if service is None:
        hint = "start a service with an HTTP port, or a program that listens on 8080"
        return f"nothing listens on port {port} of the sprite", hint
    name = service.definition.name
    if service.definition.stopped:
        return f"the service {name} is stopped", f"start it: sprite-env services start {name}"
    hint = f"see its log: sprite-env services logs {name}"
    if service.status is Status.RUNNING:
        return f"the service {name} runs, but does not listen on port {port}", hint
    return f"the service {name} does not run: {service.state().get('error', service.status.value)}", hint
