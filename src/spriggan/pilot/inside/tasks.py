"""Tasks: what a program inside does that must keep the sprite awake, until a time it names."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spriggan.pilot.request import BadRequest, error_response, json_body, refusing
from spriggan.wire.durations import parse_duration

LONGEST_S = 3600.0
MAX_TASKS = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")
EXAMPLE = 'for example {"name": "build", "expire": "10m"}; at most an hour, which can be renewed'


@dataclass(frozen=True)
class Task:
    """One reason to stay awake. Times are seconds since the epoch."""

    name: str
    started_at: float
    expires_at: float

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "started_at": _timestamp(self.started_at),
            "expires_at": _timestamp(self.expires_at),
        }


class Tasks:
    """The tasks of one sprite, kept in ``file`` so that they outlive a pilot."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tasks: dict[str, Task] = {}

    def routes(self, prefix: str) -> list[BaseRoute]:
        """``/tasks`` is a name for all, and by ``PUT`` for the one that the body names."""
        one = f"{prefix}/tasks/{{name}}"
        return [
            Route(f"{prefix}/tasks", self.all, methods=["GET"]),
            Route(f"{prefix}/tasks", refusing(self.create), methods=["POST"]),
            Route(f"{prefix}/tasks", refusing(self.put), methods=["PUT"]),
            Route(one, self.get, methods=["GET"]),
            Route(one, refusing(self.put), methods=["PUT"]),
            Route(one, self.delete, methods=["DELETE"]),
        ]

    def load(self) -> None:
        """Take over the tasks that an earlier pilot kept."""
        try:
            found = [Task(**fields) for fields in json.loads(self._file.read_text())]
        except (FileNotFoundError, ValueError, TypeError):
            return
        self._tasks = {task.name: task for task in found}

    def clear(self) -> None:
        """Forget all tasks: the programs that held them are gone."""
        self._tasks = {}
        self._save()

    def reasons(self) -> list[str]:
        """Why the sprite is to stay awake."""
        return [
            f"task {task.name} until {datetime.fromtimestamp(task.expires_at, UTC):%H:%M} UTC"
            for task in self._live()
        ]

    async def all(self, request: Request) -> Response:
        return JSONResponse({"tasks": [task.to_json() for task in self._live()]})

    async def get(self, request: Request) -> Response:
        task = self._named(request.path_params["name"])
        return _missing(request) if task is None else JSONResponse(task.to_json())

    async def create(self, request: Request) -> Response:
        name, expire = await _body(request, None)
        if self._named(name) is not None:
            return error_response(
                409, f"task already exists: {name}", "renew it with PUT, or use another name"
            )
        return JSONResponse(self._set(name, expire).to_json(), 201)

    async def put(self, request: Request) -> Response:
        """Create a task or renew it."""
        name, expire = await _body(request, request.path_params.get("name"))
        return JSONResponse(self._set(name, expire).to_json())

    async def delete(self, request: Request) -> Response:
        if self._named(request.path_params["name"]) is None:
            return _missing(request)
        del self._tasks[request.path_params["name"]]
        self._save()
        return Response(status_code=204)

    def _live(self) -> list[Task]:
        now = time.time()
        self._tasks = {name: task for name, task in self._tasks.items() if task.expires_at > now}
        return sorted(self._tasks.values(), key=lambda task: task.started_at)

    def _named(self, name: str) -> Task | None:
        return next((task for task in self._live() if task.name == name), None)

    def _set(self, name: str, expire: float) -> Task:
        before, now = self._named(name), time.time()
        if before is None and len(self._tasks) >= MAX_TASKS:
            raise BadRequest(f"there are {MAX_TASKS} tasks already", "delete one first")
        task = Task(name, before.started_at if before else now, now + expire)
        self._tasks[name] = task
        self._save()
        return task

    def _save(self) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps([asdict(task) for task in self._tasks.values()]))
        temporary.rename(self._file)


async def _body(request: Request, name: str | None) -> tuple[str, float]:
    """Name and seconds of a task; the name may be in the path already."""
    data = await json_body(request, EXAMPLE)
    named = name if name is not None else data.get("name")
    if not isinstance(named, str) or not NAME.fullmatch(named):
        raise BadRequest("name is required: letters, digits, '.', '_', ':' and '-', at most 63", EXAMPLE)
    return named, _seconds(data.get("expire", LONGEST_S))


def _seconds(value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value) if value.isascii() and value.isdigit() else parse_duration(value)
        except ValueError as error:
            raise BadRequest(f"expire: {error}", EXAMPLE) from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_S:
        raise BadRequest("expire is not a time of at most an hour", EXAMPLE)
    return float(value)


def _missing(request: Request) -> Response:
    return error_response(404, f"task not found: {request.path_params['name'][:80]}", "it may have expired")


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
