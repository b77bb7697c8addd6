"""The app behind ``/.sprite/api.sock``: what a sprite may ask for itself.

An allow-list. What the engine has to do is handed on to the server with the sprite's own
capability; services, tasks and mounts of checkpoints are the pilot's own, and work without it.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spriggan.pilot.inside.checkpoints import Checkpoints
from spriggan.pilot.inside.sprite_env import SpriteEnv
from spriggan.pilot.inside.tasks import Tasks
from spriggan.pilot.inside.upstream import Upstream
from spriggan.pilot.request import error_response
from spriggan.pilot.services.routes import ServiceRoutes
from spriggan.wire.spec import SpriteSpec

PREFIX = "/v1"
MAX_BODY = 64 * 1024
HINT = (
    "from inside there are services, checkpoints, tasks and info; see sprite-env --help or /.sprite/llm.txt"
)


def create_inner_app(
    spec: SpriteSpec, services: ServiceRoutes, tasks: Tasks, checkpoints: Checkpoints, upstream: Upstream
) -> Starlette:
    """Return the app of one sprite."""

    async def info(request: Request) -> Response:
        known = {"id": spec.sprite_id, "name": spec.name, "hostname": spec.hostname}
        return JSONResponse({**known, "user": spec.user.name, "memory_mb": spec.limits.memory_mb})

    async def hand_on(request: Request) -> Response:
        if request.path_params.get("id") in (".", ".."):
            return error_response(404, "no such checkpoint", HINT)
        body = b""
        try:
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    return error_response(413, "the request is too large", "a checkpoint's comment is short")
        except ClientDisconnect:
            return Response(status_code=499)
        path = request.url.path.removeprefix(f"{PREFIX}/")
        return await upstream.hand_on(request.method, path, request.url.query, body)

    async def refuse(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return error_response(status, f"{request.method} {request.url.path} is not served here", HINT)

    app = Starlette(
        routes=[
            Route(f"{PREFIX}/info", info, methods=["GET"]),
            Route(f"{PREFIX}/checkpoint", hand_on, methods=["POST"]),
            Route(f"{PREFIX}/checkpoints", hand_on, methods=["GET"]),
            Route(f"{PREFIX}/checkpoints/{{id}}", hand_on, methods=["GET"]),
            Route(f"{PREFIX}/checkpoints/{{id}}/restore", hand_on, methods=["POST"]),
            *checkpoints.routes(PREFIX),
            *services.routes(PREFIX),
            *tasks.routes(PREFIX),
        ],
        exception_handlers={404: refuse, 405: refuse},
    )
    app.router.routes.append(Route(f"{PREFIX}/sprite-env", SpriteEnv(app), methods=["POST"]))
    return app
