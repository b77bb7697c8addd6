"""The pilot's apps: one for the server, one for the sprite itself, over the same parts."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware

from spriggan.linux.autofs import Automount
from spriggan.pilot import retirement
from spriggan.pilot.control import Control
from spriggan.pilot.departures import Departures
from spriggan.pilot.exec import Exec
from spriggan.pilot.files.calls import Calls
from spriggan.pilot.files.client import FilesHelper
from spriggan.pilot.files.routes import Files
from spriggan.pilot.inner.egress import Egress
from spriggan.pilot.inside.app import create_inner_app
from spriggan.pilot.inside.checkpoints import Checkpoints
from spriggan.pilot.inside.tasks import Tasks
from spriggan.pilot.inside.upstream import Upstream
from spriggan.pilot.life import Life
from spriggan.pilot.network import Network
from spriggan.pilot.policies import PolicyApi
from spriggan.pilot.ports import Ports
from spriggan.pilot.process import Container
from spriggan.pilot.proxy import Proxy
from spriggan.pilot.services.routes import ServiceRoutes
from spriggan.pilot.services.services import Services
from spriggan.pilot.sessions import Sessions
from spriggan.pilot.url import Url
from spriggan.wire.spec import SpriteSpec


class Apps:
    """What a pilot serves.

    ``netns`` is a descriptor of the sprite's network namespace, ``automount`` its directory of checkpoints.
    """

    def __init__(
        self,
        container: Container,
        spec: SpriteSpec,
        egress: Egress,
        netns: int,
        automount: Automount | None = None,
    ) -> None:
        self._run_dir = Path(spec.run_dir)
        self._sessions = sessions = Sessions(container, Path(spec.spool_dir))
        self._files = files = FilesHelper()
        network = Network(netns, container)
        ports = Ports(network)
        commands = Exec(sessions, spec, ports)
        calls = Calls(files, container, spec)
        upstream = Upstream(spec)
        self._services = Services(container, spec, network.await_listener)
        self._tasks = Tasks(Path(spec.run_dir) / "tasks.json")
        self._checkpoints = Checkpoints(container, upstream, automount)
        self._service_routes = services = ServiceRoutes(self._services)
        self._life = life = Life(
            container,
            sessions,
            files=files,
            services=self._services,
            tasks=self._tasks,
            checkpoints=self._checkpoints,
        )
        self.server = Starlette(
            routes=[
                *commands.routes(),
                *Files(calls).routes(),
                *Control(commands, calls, spec).routes(),
                *services.routes(),
                *Proxy(network, self._services.coming).routes(),
                *Url(network, self._services).routes(),
                *ports.routes(),
                *life.routes(),
                *PolicyApi(container, egress).routes(),
            ],
            middleware=[Middleware(Departures)],
        )
        """Everything of the API that concerns one sprite: the public paths without ``/v1/sprites/{name}``."""
        self.inner = create_inner_app(spec, services, self._tasks, self._checkpoints, upstream)
        """What a sprite may ask for itself."""

    async def begin(self) -> None:
        """Take over what an earlier pilot left, and start the services."""
        left = retirement.left(self._run_dir) or {}
        self._sessions.begin(left.get("sessions"))
        self._tasks.load()
        self._checkpoints.begin()
        await self._services.begin(left.get("services"))

    def needed(self) -> str:
        """What the sprite needs its pilot for, beside connections; empty if for nothing."""
        needs = {
            "a session": self._sessions.busy,
            "a task": bool(self._tasks.reasons()),
            "a service": self._services.busy or self._service_routes.busy,
            "a file operation": self._files.busy,
            "a checkpoint that is looked at": self._checkpoints.busy,
            "a change of the container": self._life.busy,
        }
        return next((what for what, needed in needs.items() if needed), "")

    def leave(self) -> retirement.Left:
        """What ``begin`` of the next pilot has to know."""
        return {"sessions": self._sessions.leave(), "services": self._services.leave()}
