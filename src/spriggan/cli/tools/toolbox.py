"""Where tools are put: how they are marked, which sprites they may name, and how they fail."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from spriggan.cli.api import Api
from spriggan.cli.endpoint import segment
from spriggan.errors import InvalidRequest, SprigganError

Tool = TypeVar("Tool", bound=Callable[..., Any])


class Kind(Enum):
    """What a tool does to what is there. Agents' programs ask people before they use some kinds."""

    LOOKS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
    REPLACES = ToolAnnotations(
        read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
    )
    DESTROYS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
    RUNS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True)


class Toolbox:
    """The tools of one server, for sprites whose names begin with ``prefix``."""

    def __init__(self, server: MCPServer, api: Api, prefix: str, *, read_only: bool) -> None:
        self.api = api
        self.prefix = prefix
        self._server = server
        self._read_only = read_only

    def path(self, sprite: str) -> str:
        """The API's path of a sprite. Raises ``InvalidRequest`` if tools may not name it."""
        if not sprite.startswith(self.prefix):
            raise InvalidRequest(
                f"{sprite!r} is out of reach", hint=f"only names that start with {self.prefix!r} are allowed"
            )
        return f"/v1/sprites/{segment(sprite)}"

    def tool(self, kind: Kind) -> Callable[[Tool], Tool]:
        """Put a function in; its name, docstring and types are what agents see."""

        def put(function: Tool) -> Tool:
            if kind is Kind.LOOKS or not self._read_only:
                self._server.tool(annotations=kind.value)(_explaining(function))
            return function

        return put


def _explaining(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` whose errors agents can read; what nobody foresaw stays in the log."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except SprigganError as error:
                raise _failure(error) from error

        return waiting

    @functools.wraps(function)
    def calling(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except SprigganError as error:
            raise _failure(error) from error

    return calling


def _failure(error: SprigganError) -> ToolError:
    return ToolError(f"{error.message}\nhint: {error.hint}" if error.hint else error.message)
