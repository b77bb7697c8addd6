"""Tools for services."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from spriggan.cli.endpoint import segment
from spriggan.cli.tools.bounds import Bounded
from spriggan.cli.tools.sprites import Name
from spriggan.cli.tools.toolbox import Kind, Toolbox

ServiceName = Annotated[str, Field(description="The service's name.")]
WATCHED = "2s"  # how long it is looked at after a start


def add(toolbox: Toolbox) -> None:
    """Put the tools into ``toolbox``."""
    api = toolbox.api

    def place(sprite: str, service: str) -> str:
        return f"{toolbox.path(sprite)}/services/{segment(service)}"

    @toolbox.tool(Kind.LOOKS)
    def list_services(sprite: Name) -> dict[str, Any]:
        """List services: processes that are started with the sprite and again when they end."""
        return {"services": api.get(f"{toolbox.path(sprite)}/services")}

    @toolbox.tool(Kind.REPLACES)
    def create_service(
        sprite: Name,
        service: ServiceName,
        *,
        cmd: Annotated[str, Field(description="The program. There is no shell: for one it is sh.")],
        args: Annotated[list[str] | None, Field(description='For a shell: ["-c", "a | b"].')] = None,
        environment: dict[str, str] | None = None,
        directory: str | None = None,
        needs: Annotated[list[str] | None, Field(description="Services that start first.")] = None,
        http_port: Annotated[int | None, Field(ge=1, le=65535, description="Where it serves HTTP.")] = None,
    ) -> str:
        """Create or change a service, and start it. It must stay in the foreground."""
        wanted = {"args": args, "env": environment, "dir": directory, "needs": needs, "http_port": http_port}
        body = {"cmd": cmd, **{key: value for key, value in wanted.items() if value}}
        return _told(api.stream(place(sprite, service), body, method="PUT", duration=WATCHED))

    @toolbox.tool(Kind.REPLACES)
    def control_service(
        sprite: Name, service: ServiceName, action: Literal["start", "stop", "restart"]
    ) -> str:
        """Start, stop or restart a service. One that was stopped stays so until it is started."""
        params = {} if action == "stop" else {"duration": WATCHED}
        return _told(api.stream(f"{place(sprite, service)}/{action}", **params))

    @toolbox.tool(Kind.LOOKS)
    def service_logs(
        sprite: Name, service: ServiceName, lines: Annotated[int, Field(ge=1, le=1000)] = 100
    ) -> str:
        """The last lines that a service wrote."""
        return _told(api.watch(f"{place(sprite, service)}/logs", lines=str(lines), duration="0s"))

    @toolbox.tool(Kind.DESTROYS)
    def delete_service(sprite: Name, service: ServiceName) -> str:
        """Stop and delete a service; its log stays."""
        api.delete(place(sprite, service))
        return f"{service} is deleted"


def _told(messages: Iterator[dict[str, Any]]) -> str:
    """A stream as text, a line for whatever is no output."""
    told = Bounded()
    for message in messages:
        kind = message.get("type")
        if kind in ("stdout", "stderr"):
            told.add(str(message.get("data", "")).encode())
        elif kind == "exit":
            told.add(f"[exit code {message.get('exit_code')}]\n".encode())
        elif kind != "complete":
            told.add(f"[{kind}]\n".encode())
    return told.text()
