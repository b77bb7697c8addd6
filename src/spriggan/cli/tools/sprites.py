"""Tools for sprites as a whole."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from spriggan.cli.list import all_sprites
from spriggan.cli.tools.bounds import rows
from spriggan.cli.tools.toolbox import Kind, Toolbox

SHOWN = ("name", "status", "image", "labels", "created_at")
DETAILS = (
    *SHOWN,
    "id",
    "url",
    "config",
    "environment",
    "current_checkpoint",
    "awake_because",
    "last_error",
)

Name = Annotated[str, Field(description="The sprite's name.")]
NewName = Annotated[str, Field(description="A new name: letters, digits and dashes.")]


def add(toolbox: Toolbox) -> None:
    """Put the tools into ``toolbox``."""
    api = toolbox.api

    @toolbox.tool(Kind.LOOKS)
    def list_sprites(
        prefix: Annotated[str, Field(description="Only names that start so.")] = "",
    ) -> dict[str, Any]:
        """List sprites by name, with their status: cold (on disk), warm (frozen) or running."""
        # The longer of the two contains the other, or there can be no such sprite.
        longest = max(prefix, toolbox.prefix, key=len)
        found = [
            _only(SHOWN, sprite)
            for sprite in all_sprites(api, longest)
            if sprite["name"].startswith(toolbox.prefix) and sprite["name"].startswith(prefix)
        ]
        return rows("sprites", found, "give a prefix")

    @toolbox.tool(Kind.LOOKS)
    def get_sprite(sprite: Name) -> dict[str, Any]:
        """Show one sprite: status, limits, labels, what keeps it awake. Does not start it."""
        return _only(DETAILS, api.get(toolbox.path(sprite)))

    @toolbox.tool(Kind.ADDS)
    def create_sprite(
        name: NewName,
        image: Annotated[str | None, Field(description="The server's default image if not given.")] = None,
        labels: list[str] | None = None,
        environment: Annotated[
            dict[str, str] | None, Field(description="Variables of every command in it.")
        ] = None,
    ) -> dict[str, Any]:
        """Make a sprite, a persistent Linux computer. It starts with its first use."""
        toolbox.path(name)
        wanted = {"image": image, "labels": labels, "environment": environment}
        given = {key: value for key, value in wanted.items() if value}
        return _only(DETAILS, api.post("/v1/sprites", {"name": name, **given}))

    @toolbox.tool(Kind.ADDS)
    def fork_sprite(
        sprite: Name,
        name: NewName,
        checkpoint: Annotated[
            str | None, Field(description="Start from this checkpoint; the live disk if not given.")
        ] = None,
    ) -> dict[str, Any]:
        """Make a new sprite with a copy of another one's disk, which goes on running. Takes milliseconds."""
        toolbox.path(name)
        given = {"checkpoint": checkpoint} if checkpoint else {}
        return _only(DETAILS, api.post(f"{toolbox.path(sprite)}/fork", {"name": name, **given}))

    @toolbox.tool(Kind.DESTROYS)
    def destroy_sprite(sprite: Name) -> str:
        """Delete a sprite for good: its processes, its disk and all its checkpoints."""
        api.delete(toolbox.path(sprite))
        return f"{sprite} is gone"


def _only(keys: tuple[str, ...], sprite: dict[str, Any]) -> dict[str, Any]:
    return {key: sprite[key] for key in keys if sprite.get(key) not in (None, "", [], {})}
