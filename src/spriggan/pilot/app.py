"""The pilot's app for the server: everything of the API that concerns one sprite."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette

from spriggan.pilot.control import Control
from spriggan.pilot.exec import Exec
from spriggan.pilot.files.calls import Calls
from spriggan.pilot.files.client import FilesHelper
from spriggan.pilot.files.routes import Files
from spriggan.pilot.inner.egress import Egress
from spriggan.pilot.life import Life
from spriggan.pilot.policies import PolicyApi
from spriggan.pilot.process import Container
from spriggan.pilot.sessions import Sessions
from spriggan.wire.spec import SpriteSpec


def create_app(container: Container, spec: SpriteSpec, egress: Egress) -> Starlette:
    """Return the app; its paths are the public ones without ``/v1/sprites/{name}``."""
    sessions = Sessions(container, Path(spec.spool_dir))
    files = FilesHelper()
    commands = Exec(sessions, spec)
    calls = Calls(files, container, spec)
    return Starlette(
        routes=[
            *commands.routes(),
            *Files(calls).routes(),
            *Control(commands, calls, spec).routes(),
            *Life(container, sessions, files).routes(),
            *PolicyApi(container, egress).routes(),
        ]
    )
