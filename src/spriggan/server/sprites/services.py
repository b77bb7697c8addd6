"""A sprite's services: described and admitted here, answered by its pilot."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.responses import Response

from spriggan.server.errors import failures
from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.sprites import pilot_models as models
from spriggan.server.sprites.answer import Answer
from spriggan.server.sprites.described import DURATION, NDJSON, WAKING, answers, body, of, parameter, query

router = APIRouter(prefix="/v1/sprites/{name}/services", tags=["services"], default_response_class=Response)

ServiceName = Annotated[str, Path(description="The service's name.", examples=["web"])]

_WATCH = parameter("duration", "How long to tell what happens; `5s` if not given.", DURATION)
_TIMEOUT = parameter("timeout", "How long it has to end before it is killed; `10s` if not given.", DURATION)


def _stream(*errors: int) -> dict[int | str, Any]:
    words = "What happens, one object a line; the last one has the type `complete`."
    return answers(words, models.ServiceEvent, *errors, media_type=NDJSON)


def _path(service: str, rest: str = "") -> str:
    return f"/services/{quote(service, safe='')}{rest}"


@router.get(
    "",
    responses=answers("All services.", {"type": "array", "items": of(models.ServiceReply)}),
    summary="List services",
)
async def list_(engine: EngineOf, name: SpriteName) -> Response:
    """All services by name, each with its definition and its `state`."""
    return Answer(engine, name, "/services")


@router.post(
    "/signal",
    status_code=204,
    responses=failures(400, 404, 409, *WAKING),
    openapi_extra=body(models.ServiceSignalBody),
    summary="Signal a service",
)
async def signal(engine: EngineOf, name: SpriteName) -> Response:
    """Send a signal to a service's process. If it ends of it, it is started again."""
    return Answer(engine, name, "/services/signal")


@router.get("/{service}", responses=answers("The service.", models.ServiceReply), summary="Get a service")
async def get(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """One service, with its definition and its `state`."""
    return Answer(engine, name, _path(service))


@router.put(
    "/{service}",
    responses=_stream(400, 409),
    openapi_extra={**query(_WATCH), **body(models.ServiceBody)},
    summary="Create or change a service",
)
async def put(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """Keep the definition on the sprite's disk and start it. One that is changed is restarted."""
    return Answer(engine, name, _path(service))


@router.delete(
    "/{service}",
    status_code=204,
    responses=failures(400, 404, 409, *WAKING),
    openapi_extra=query(_TIMEOUT),
    summary="Delete a service",
)
async def delete(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """Stop it and forget its definition; its log stays. Refused while other services need it."""
    return Answer(engine, name, _path(service))


@router.post(
    "/{service}/start", responses=_stream(400), openapi_extra=query(_WATCH), summary="Start a service"
)
async def start(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """Start it and what it needs, now and whenever the sprite starts. Fine if it runs."""
    return Answer(engine, name, _path(service, "/start"))


@router.post(
    "/{service}/stop", responses=_stream(400, 409), openapi_extra=query(_TIMEOUT), summary="Stop a service"
)
async def stop(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """End it. It stays stopped, also when the sprite starts anew, until somebody starts it."""
    return Answer(engine, name, _path(service, "/stop"))


@router.post(
    "/{service}/restart",
    responses=_stream(400),
    openapi_extra=query(_WATCH, _TIMEOUT),
    summary="Restart a service",
)
async def restart(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """Stop it and start it."""
    return Answer(engine, name, _path(service, "/restart"))


@router.get(
    "/{service}/logs",
    responses=_stream(400),
    openapi_extra=query(
        parameter(
            "lines", "How many of the last lines; 100 if not given.", {"type": "integer", "minimum": 0}
        ),
        parameter("duration", "How long to go on with what comes.", DURATION),
    ),
    summary="Read a service's log",
)
async def logs(engine: EngineOf, name: SpriteName, service: ServiceName) -> Response:
    """The last lines of its output and, for `duration`, the next ones."""
    return Answer(engine, name, _path(service, "/logs"))
