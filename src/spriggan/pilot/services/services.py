"""All services of a sprite: defined, started in order, found again by the next pilot."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from spriggan.pilot.process import Container, Process
from spriggan.pilot.request import BadRequest, Refusal, default_environment
from spriggan.pilot.services import book
from spriggan.pilot.services.definition import MAX_SERVICES, Definition
from spriggan.pilot.services.log import ServiceLog
from spriggan.pilot.services.logfile import LogFile
from spriggan.pilot.services.run import Record, Run
from spriggan.pilot.services.service import Service, Status
from spriggan.wire.spec import SpriteSpec

NEEDS_PATIENCE_S = 10.0  # for the services that another one needs
FRESH_S = 10.0  # after its start a service may still be getting ready
DIRECTORY = "services"  # below the run directory: pipes, and which processes run
RUNNING = "running.json"

log = logging.getLogger(__name__)


class ServiceError(Refusal):
    """What was asked of a service cannot be done."""


class Services:
    """The services of one sprite. There are none before ``begin`` and after ``end``."""

    def __init__(
        self, container: Container, spec: SpriteSpec, listener: Callable[[int], Awaitable[None]]
    ) -> None:
        self._container = container
        self._spec = spec
        self._listener = listener
        self._directory = Path(spec.run_dir) / DIRECTORY
        self._services: dict[str, Service] = {}
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = False

    async def begin(self, left: dict[str, Any] | None = None) -> None:
        """Start what the disk says, in order, but for what runs already. Does not wait for it.

        ``left`` is what the pilot before this one said with ``leave``.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        definitions = await asyncio.to_thread(book.load, self._container.own_disk)
        self._services = {name: self._service(definition) for name, definition in definitions.items()}
        for name, count in (left or {}).get("restarts", {}).items():
            if name in self._services:
                self._services[name].restart_count = count
        in_use = set()
        for name, (record, restart_count) in self._recorded().items():
            run = Run.adopt(self._container, record)
            if run is not None and name in self._services:
                self._services[name].adopt(run, restart_count)
                in_use.add(record.pipes)
        for pipe in self._directory.glob("*.std*"):
            if str(pipe.with_suffix("")) not in in_use:  # of a process that ended while there was no pilot
                pipe.unlink()
        self._begun = True
        for service in self._services.values():
            if not service.definition.stopped and not service.active:
                self._spawn(service.start())

    async def end(self, grace: float) -> None:
        """End all services, those that need others first, and let go of the disk.

        They get SIGTERM and ``grace`` seconds; with none, they are left to whoever kills the rest.
        """
        self._begun = False
        services = list(self._services.values())
        if grace > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.gather(*(self._end(service, grace) for service in services))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(service.forget() for service in services))
        await asyncio.gather(*(service.log.close() for service in services))
        self._services = {}

    @property
    def busy(self) -> bool:
        """Whether a service runs, is meant to, or is being changed."""
        up = any(each.active or not each.definition.stopped for each in self._services.values())
        return up or bool(self._tasks) or self._changing.locked()

    def leave(self) -> dict[str, Any]:
        """What the next pilot needs to know of services, all of which are stopped, beside what is on the disk."""
        return {"restarts": {name: service.restart_count for name, service in self._services.items()}}

    def all(self) -> list[Service]:
        """By name."""
        self._check()
        return [self._services[name] for name in sorted(self._services)]

    def get(self, name: str) -> Service:
        """Raises ``ServiceError`` (404) if there is none of that name."""
        self._check()
        service = self._services.get(name)
        if service is None:
            raise ServiceError(
                404, f"service not found: {name[:80]}", "see what there is in the list of services"
            )
        return service

    async def put(self, definition: Definition) -> tuple[Service, bool]:
        """Keep a definition; return its service and whether that is defined otherwise than before.

        Raises ``ServiceError`` or ``BadRequest``; then nothing is changed.
        """
        self._check()
        async with self._changing:
            self._accept(definition)
            service = self._services.get(definition.name)
            others = [each.definition for name, each in self._services.items() if name != definition.name]
            await self._save([*others, definition])
            if service is None:
                service = self._services[definition.name] = self._service(definition)
            changed = replace(service.definition, stopped=False) != definition
            service.definition = definition
            return service, changed

    async def delete(self, name: str, timeout: float) -> None:
        """Stop and forget a service. Raises ``ServiceError``: 409 if others need it."""
        async with self._changing:
            service = self.get(name)
            dependents = self._dependents(name)
            if dependents:
                raise ServiceError(
                    409, f"{name} is needed by {', '.join(dependents)}", "delete or change those first"
                )
            await self._save(each.definition for each in self._services.values() if each is not service)
            del self._services[name]
        await service.stop(timeout)
        await service.log.close()

    async def start(self, service: Service) -> None:
        """Start a service and what it needs; from now on it is started with the sprite."""
        for name in [*self._needed_by(service.definition), service.definition.name]:
            each = self._services.get(name)
            if each is not None:
                await self._keep_stopped(each, False)
                if each is not service:
                    self._spawn(each.start())
        await service.start()

    async def stop(self, service: Service, timeout: float) -> None:
        """Stop a service until somebody starts it, also beyond a cold start."""
        await self._keep_stopped(service, True)
        await service.stop(timeout)

    def coming(self, port: int) -> bool:
        """Whether a service is being started that is to listen on ``port``."""
        return any(
            service.definition.http_port == port and service.active and service.status is not Status.RUNNING
            for service in self._services.values()
        )

    def with_http_port(self) -> Service | None:
        """The one that the sprite's URL leads to. Raises ``ServiceError`` while the sprite is stopped."""
        return next((service for service in self.all() if service.definition.http_port), None)

    def fresh(self) -> bool:
        """Whether a service is being started or was just now, and so may listen in a moment."""
        return any(
            service.status is Status.STARTING
            or (service.run is not None and time.time() - service.run.record.started_at < FRESH_S)
            for service in self._services.values()
        )

    def _service(self, definition: Definition) -> Service:
        return Service(
            definition,
            ServiceLog(LogFile(self._container.own_disk, definition.name)),
            launch=self._launch,
            ready=self._await_needs,
            listener=self._listener,
            changed=self._record,
        )

    async def _launch(self, definition: Definition) -> Run:
        process = Process(
            argv=[definition.cmd, *definition.args],
            env={**default_environment(self._spec), **definition.env},
            cwd=definition.dir or "",
        )
        return await Run.start(self._container, self._container.complete(process), self._directory)

    async def _await_needs(self, definition: Definition) -> None:
        """Wait until what a service needs runs; not for ever, for it may be what is broken."""
        needs = [self._services[name].up() for name in definition.needs if name in self._services]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NEEDS_PATIENCE_S):
                await asyncio.gather(*needs)

    async def _end(self, service: Service, grace: float) -> None:
        """Stop a service when all that need it have stopped."""
        for name in self._dependents(service.definition.name):
            while (dependent := self._services.get(name)) and dependent.active:
                await dependent.moved()
        await service.stop(grace)

    def _accept(self, definition: Definition) -> None:
        """Raise what is wrong with ``definition`` beside the others."""
        others = {name: each.definition for name, each in self._services.items() if name != definition.name}
        if len(others) >= MAX_SERVICES:
            raise ServiceError(409, f"a sprite has at most {MAX_SERVICES} services", "delete one first")
        if definition.http_port is not None and any(each.http_port for each in others.values()):
            raise ServiceError(
                409,
                "another service already has an HTTP port configured",
                "a sprite's URL leads to one service; leave http_port out",
            )
        for name in definition.needs:
            if name not in others:
                raise BadRequest(
                    f"{definition.name} needs {name}, which does not exist", f"create {name} first"
                )
        if definition.name in self._needed_by(definition):
            raise BadRequest(
                f"{definition.name} would need itself, by way of what it needs", "leave out one of the needs"
            )

    def _needed_by(self, definition: Definition) -> list[str]:
        """All that a service needs, directly or not."""
        found: dict[str, None] = {}
        open_ends = list(definition.needs)
        while open_ends:
            name = open_ends.pop()
            if name not in found:
                found[name] = None
                if name in self._services and name != definition.name:
                    open_ends += self._services[name].definition.needs
        return list(found)

    def _dependents(self, name: str) -> list[str]:
        return sorted(n for n, each in self._services.items() if name in each.definition.needs)

    async def _keep_stopped(self, service: Service, stopped: bool) -> None:
        async with self._changing:
            if service.definition.stopped is not stopped:
                before, service.definition = service.definition, replace(service.definition, stopped=stopped)
                try:
                    await self._save(each.definition for each in self._services.values())
                except BaseException:
                    service.definition = before
                    raise

    async def _save(self, definitions: Iterable[Definition]) -> None:
        try:
            await asyncio.to_thread(book.save, self._container.own_disk, list(definitions))
        except OSError as error:
            raise ServiceError(
                507, f"the services cannot be kept: {error.strerror}", "free some space on the sprite's disk"
            ) from error

    def _record(self) -> None:
        """Write down which processes run, for a pilot that comes after this one."""
        running = {
            name: {**asdict(service.run.record), "restart_count": service.restart_count}
            for name, service in self._services.items()
            if service.run is not None
        }
        temporary = self._directory / f"{RUNNING}.new"
        temporary.write_text(json.dumps(running))
        temporary.rename(self._directory / RUNNING)

    def _recorded(self) -> dict[str, tuple[Record, int]]:
        try:
            data: dict[str, dict[str, Any]] = json.loads((self._directory / RUNNING).read_text())
            return {
                name: (
                    Record(**{k: v for k, v in fields.items() if k != "restart_count"}),
                    fields["restart_count"],
                )
                for name, fields in data.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError) as error:
            log.error("which services run cannot be read: %r", error)
            return {}

    def _check(self) -> None:
        if not self._begun:
            raise ServiceError(503, "the sprite is not running", "try again in a moment")

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
