"""How a pilot ends while nobody needs it, and what it leaves to the one that follows.

A sprite that does nothing needs no pilot: its namespaces and sockets are with the keeper. So the server asks
its pilot to end, and starts another for the next use. Beside what is written down all the time (tasks,
services that run), the first one leaves what only it knows in ``handover.json``, and then in ``retired`` its
own name. As long as that is what the server knows the pilot by, nothing has died.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spriggan import faults
from spriggan.linux import process
from spriggan.wire.spec import PROTOCOL

HANDOVER = "handover.json"
RETIRED = "retired"  # the server reads it, too
PILOT = "pilot"  # the server writes it

Left = dict[str, Any]


class Retirement:
    """One pilot's: ``agreed`` is set when it is to end.

    ``needed`` says what the pilot is needed for, or nothing; ``leave`` what its successor has to know.
    """

    def __init__(self, run_dir: Path, *, needed: Callable[[], str], leave: Callable[[], Left]) -> None:
        self.agreed = asyncio.Event()
        self._run_dir = run_dir
        self._needed = needed
        self._leave = leave

    def routes(self) -> list[BaseRoute]:
        return [Route("/pilot/retire", self.ask, methods=["POST"])]

    async def ask(self, request: Request) -> Response:
        """End, unless the pilot is needed. Nothing else happens in this process between the look and the end."""
        if because := self._needed():
            return JSONResponse({"retired": False, "because": because})
        _replace(self._run_dir / HANDOVER, json.dumps({"protocol": PROTOCOL, **self._leave()}))
        faults.point("pilot:noted")
        process.write_down(self._run_dir / RETIRED, os.getpid())
        faults.point("pilot:retired")
        return JSONResponse({"retired": True}, background=BackgroundTask(self._end))

    async def _end(self) -> None:
        self.agreed.set()


def left(run_dir: Path) -> Left | None:
    """What the pilot before this one left; None if it died, or was of another version."""
    try:
        if (run_dir / RETIRED).read_text() != (run_dir / PILOT).read_text():
            return None
        found: Left = json.loads((run_dir / HANDOVER).read_text())
    except FileNotFoundError:
        return None
    return found if found["protocol"] == PROTOCOL else None


def _replace(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.new")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.rename(file)
