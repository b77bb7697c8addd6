"""What the server tells and asks the pilot itself: status, and to stop and start the user's world."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spriggan.pilot.files.client import FilesHelper
from spriggan.pilot.inside.checkpoints import Checkpoints
from spriggan.pilot.inside.tasks import Tasks
from spriggan.pilot.process import Container
from spriggan.pilot.request import error_response
from spriggan.pilot.services.services import Services
from spriggan.pilot.sessions import Sessions
from spriggan.wire.spec import PROTOCOL


class Life:
    """The server's endpoints under ``/pilot``."""

    def __init__(
        self,
        container: Container,
        sessions: Sessions,
        *,
        files: FilesHelper,
        services: Services,
        tasks: Tasks,
        checkpoints: Checkpoints,
    ) -> None:
        self._container = container
        self._sessions = sessions
        self._files = files
        self._services = services
        self._tasks = tasks
        self._checkpoints = checkpoints
        self._changing = asyncio.Lock()

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/pilot/status", self.status, methods=["GET"]),
            Route("/pilot/stop", self.stop, methods=["POST"]),
            Route("/pilot/start", self.start, methods=["POST"]),
        ]

    @property
    def busy(self) -> bool:
        """Whether the user's world is being stopped or started."""
        return self._changing.locked()

    async def status(self, request: Request) -> Response:
        """Whether the sprite runs, and why it should stay awake."""
        sessions = [session.id for session in self._sessions.running()]
        return JSONResponse(
            {
                "protocol": PROTOCOL,
                "running": self._container.running,
                "sessions": sessions,
                "reasons": [*(f"session {session}" for session in sessions), *self._tasks.reasons()],
            }
        )

    async def stop(self, request: Request) -> Response:
        """End the user's processes and let go of the disk; ``grace`` in seconds."""
        try:
            grace = min(max(float(request.query_params.get("grace", "0")), 0.0), 60.0)
        except ValueError:
            return error_response(400, "grace is not a number of seconds", "write grace=2")
        async with self._changing:
            await self._files.pause()
            await self._services.end(grace)
            self._tasks.clear()
            self._checkpoints.forget()
            try:
                await asyncio.to_thread(self._container.stop, grace)
            except OSError as error:
                return error_response(500, f"the sprite could not be stopped: {error}")
            await self._sessions.end_all()
        return JSONResponse({"running": False})

    async def start(self, request: Request) -> Response:
        """Start the user's world from the disk as it is now."""
        async with self._changing:
            if not self._container.running:
                try:
                    await asyncio.to_thread(self._container.start)
                except OSError as error:
                    return error_response(500, f"the sprite could not be started: {error}")
                await self._services.begin()
            self._files.resume()
        return JSONResponse({"running": True})
