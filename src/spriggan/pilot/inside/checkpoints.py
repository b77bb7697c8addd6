"""The last checkpoints as directories inside the sprite, mounted when looked at and dropped when unused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spriggan.linux.autofs import Automount
from spriggan.linux.autofs import Request as Lookup
from spriggan.pilot.inside.upstream import Upstream
from spriggan.pilot.process import Container
from spriggan.pilot.request import error_response

SHOWN = 5  # how many of the latest can be looked at
DROP_EVERY_S = 30.0  # what nobody looked at since the last time is dropped
DIRECTORY = "/.sprite/checkpoints"
_NUMBERED = re.compile(r"v[0-9]{1,9}")

log = logging.getLogger(__name__)


class Checkpoints:
    """Mounts of checkpoints in one sprite."""

    def __init__(self, container: Container, upstream: Upstream, automount: Automount | None) -> None:
        self._container = container
        self._upstream = upstream
        self._automount = automount
        self._changing = asyncio.Lock()
        self._dropping: asyncio.Task[None] | None = None
        self._opening: set[asyncio.Task[None]] = set()

    def routes(self, prefix: str) -> list[BaseRoute]:
        one = f"{prefix}/checkpoints/{{id}}/mount"
        return [
            Route(one, self.mount, methods=["POST"]),
            Route(one, self.unmount, methods=["DELETE"]),
        ]

    def begin(self) -> None:
        """Look after what an earlier pilot mounted, and after those who look."""
        self._watch()
        if self._automount is not None:
            asyncio.get_running_loop().add_reader(self._automount.fileno(), self._looked_at)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is shown, or is about to be."""
        return bool(self._opening or self._changing.locked() or self._container.shown_checkpoints())

    def forget(self) -> None:
        """The container has ended, and the mounts with it."""
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None

    async def mount(self, request: Request) -> Response:
        """Show a checkpoint read-only; answers with its path. Fine if it is there already."""
        name = request.path_params["id"]
        refusal = await self._show(name)
        return refusal or JSONResponse({"id": name, "path": f"{DIRECTORY}/{name}"})

    async def unmount(self, request: Request) -> Response:
        """Take a checkpoint away at once; who still has a file of it open keeps that."""
        name = request.path_params["id"]
        async with self._changing:
            if name not in self._container.shown_checkpoints():
                return error_response(404, f"{name[:40]} is not mounted", f"see what is in {DIRECTORY}")
            await asyncio.to_thread(self._container.drop_checkpoint, name, unused=False)
        return Response(status_code=204)

    async def _latest(self) -> list[str]:
        """The checkpoints that can be looked at, oldest first, asked of the server."""
        known = json.loads(await self._upstream.get("checkpoints"))
        numbered = [each["id"] for each in known if _NUMBERED.fullmatch(str(each.get("id")))]
        return sorted(numbered, key=lambda name: int(name[1:]))[-SHOWN:]

    def _looked_at(self) -> None:
        """Somebody inside looks at an entry of the directory, and waits."""
        assert self._automount is not None  # noqa: S101 - for mypy: registered for it alone
        for request in self._automount.requests():
            task = asyncio.create_task(self._open(self._automount, request))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, automount: Automount, request: Lookup) -> None:
        there = False
        try:
            there = bool(_NUMBERED.fullmatch(request.name)) and await self._show(request.name) is None
        finally:
            automount.answer(request, there=there)

    async def _show(self, name: str) -> Response | None:
        """Mount a checkpoint; the response that says why not, if that is so."""
        async with self._changing:
            if name in self._container.shown_checkpoints():
                return None
            try:
                shown = await self._latest()
            except (OSError, ValueError):
                return self._upstream.unavailable()
            if name not in shown:
                hint = f"there are: {', '.join(shown)}" if shown else "make one first"
                return error_response(404, f"{name[:40]} is none of the last {SHOWN} checkpoints", hint)
            try:
                await asyncio.to_thread(self._container.show_checkpoint, name)
            except OSError as error:
                log.warning("checkpoint %s cannot be shown: %s", name, error)
                return error_response(
                    500, f"{name} cannot be mounted: {error.strerror or error}", "try again"
                )
        self._watch()
        return None

    def _watch(self) -> None:
        if self._dropping is None and self._container.shown_checkpoints():
            self._dropping = asyncio.create_task(self._drop_unused())

    async def _drop_unused(self) -> None:
        while shown := self._container.shown_checkpoints():
            await asyncio.sleep(DROP_EVERY_S)
            async with self._changing:
                for name in shown:
                    with contextlib.suppress(OSError):
                        await asyncio.to_thread(self._container.drop_checkpoint, name, unused=True)
        self._dropping = None
