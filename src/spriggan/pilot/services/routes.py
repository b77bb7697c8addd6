"""The endpoints of services: for the server, and for the sprite itself under ``/v1``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from spriggan.pilot.request import BadRequest, json_body, refusing, seconds
from spriggan.pilot.services import definition as definitions
from spriggan.pilot.services.log import Event
from spriggan.pilot.services.service import Service
from spriggan.pilot.services.services import ServiceError, Services
from spriggan.wire import messages

WATCH_S = 5.0  # how long a start is watched if nothing else is said
LONGEST_WATCH_S = 3600.0
STOP_TIMEOUT_S = 10.0
LONGEST_STOP_S = 300.0
LINES = 100
MAX_LINES = 10_000
MAX_BODY = 512 << 10


class ServiceRoutes:
    """What can be asked of services. A handler that changes something goes on when its client has gone."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tasks: set[asyncio.Task[None]] = set()

    def routes(self, prefix: str = "") -> list[BaseRoute]:
        one = f"{prefix}/services/{{name}}"
        return [
            Route(f"{prefix}/services", refusing(self.list), methods=["GET"]),
            Route(f"{prefix}/services/signal", refusing(self.signal), methods=["POST"]),
            Route(one, refusing(self.get), methods=["GET"]),
            Route(one, refusing(self.put), methods=["PUT"]),
            Route(one, refusing(self.delete), methods=["DELETE"]),
            Route(f"{one}/start", refusing(self.start), methods=["POST"]),
            Route(f"{one}/stop", refusing(self.stop), methods=["POST"]),
            Route(f"{one}/restart", refusing(self.restart), methods=["POST"]),
            Route(f"{one}/logs", refusing(self.logs), methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        return JSONResponse([_described(service) for service in self._services.all()])

    async def get(self, request: Request) -> Response:
        return JSONResponse(_described(self._named(request)))

    async def put(self, request: Request) -> Response:
        """Create or change a service and start it; one that runs as it is to be is left alone."""
        watch = _watch(request)
        body = await json_body(request, definitions.EXAMPLE, MAX_BODY)
        wanted = definitions.parse(request.path_params["name"], body)
        service, changed = await self._services.put(wanted)

        async def work() -> None:
            if changed:
                await service.stop(STOP_TIMEOUT_S)
            await self._services.start(service)

        return self._stream(service, work, watch)

    async def delete(self, request: Request) -> Response:
        await self._services.delete(request.path_params["name"], _timeout(request))
        return Response(status_code=204)

    async def start(self, request: Request) -> Response:
        service, watch = self._named(request), _watch(request)
        return self._stream(service, lambda: self._services.start(service), watch)

    async def stop(self, request: Request) -> Response:
        service, timeout = self._named(request), _timeout(request)
        if not service.active:
            raise ServiceError(409, f"{service.definition.name} is not running", "start it first")
        return self._stream(service, lambda: self._services.stop(service, timeout), 0)

    async def restart(self, request: Request) -> Response:
        service, watch, timeout = self._named(request), _watch(request), _timeout(request)

        async def work() -> None:
            await service.stop(timeout)
            await self._services.start(service)

        return self._stream(service, work, watch)

    async def signal(self, request: Request) -> Response:
        """Signal a service's process. One that ends of it has crashed, and is started again."""
        data = await json_body(request, 'send {"name": "web", "signal": "HUP"}')
        name = data.get("name")
        if not isinstance(name, str):
            raise BadRequest("name is required", 'send {"name": "web", "signal": "HUP"}')
        number = messages.signal_number(data.get("signal"))
        if number is None:
            raise BadRequest(
                f"{str(data.get('signal'))[:40]!r} is not a signal", "use a name such as HUP or SIGTERM"
            )
        if not self._services.get(name).signal(number):
            raise ServiceError(409, f"{name} is not running", "start it first")
        return Response(status_code=204)

    async def logs(self, request: Request) -> Response:
        """The last lines of the log, and with ``duration`` what comes."""
        service = self._named(request)
        lines = _lines(request.query_params.get("lines"))
        duration = seconds(request.query_params.get("duration"), "duration", 0, LONGEST_WATCH_S)
        history, position = await service.log.history(lines)
        over = self._spawn(asyncio.sleep(duration)) if duration else None

        async def events() -> AsyncIterator[Event]:
            for event in history:
                yield event
            if over is not None:
                async for event in service.log.follow(position, over):
                    yield event
            yield _complete(service)

        return _ndjson(events())

    def _stream(
        self, service: Service, work: Callable[[], Coroutine[None, None, None]], watch: float
    ) -> Response:
        """Do ``work``; answer with what happens to the service until it is done and ``watch`` seconds longer."""
        position = service.log.end
        failures: list[str] = []

        async def perform() -> None:
            try:
                await work()
            except ServiceError as error:
                failures.append(error.message)
            else:
                await asyncio.sleep(watch)

        over = self._spawn(perform())

        async def events() -> AsyncIterator[Event]:
            async for event in service.log.follow(position, over):
                yield event
            for message in failures:
                yield {"type": "error", "data": message, "timestamp": _now()}
            yield _complete(service)

        return _ndjson(events())

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do ``work`` to its end, whoever waits for it."""
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @property
    def busy(self) -> bool:
        """Whether something that was asked for is under way."""
        return bool(self._tasks)

    def _named(self, request: Request) -> Service:
        return self._services.get(request.path_params["name"])


def _described(service: Service) -> Event:
    return {**service.definition.to_json(), "state": service.state()}


def _complete(service: Service) -> Event:
    path = service.log.path
    files = {"combined": path, "stdout": path, "stderr": path}
    return {"type": "complete", "timestamp": _now(), "log_files": files}


def _ndjson(events: AsyncIterator[Event]) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        async for event in events:
            yield json.dumps(event).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _watch(request: Request) -> float:
    return seconds(request.query_params.get("duration"), "duration", WATCH_S, LONGEST_WATCH_S)


def _timeout(request: Request) -> float:
    return seconds(request.query_params.get("timeout"), "timeout", STOP_TIMEOUT_S, LONGEST_STOP_S)


def _lines(text: str | None) -> int:
    if text is None:
        return LINES
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise BadRequest(f"lines {text[:40]!r} is not a number", f"write lines={LINES}")
    return min(int(text), MAX_LINES)


def _now() -> int:
    return int(time.time() * 1000)
