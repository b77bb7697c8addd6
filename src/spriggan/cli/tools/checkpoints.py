"""Tools for checkpoints."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from spriggan.cli.api import last_word
from spriggan.cli.endpoint import segment
from spriggan.cli.tools.bounds import rows
from spriggan.cli.tools.sprites import Name
from spriggan.cli.tools.toolbox import Kind, Toolbox

SHOWN = ("id", "create_time", "comment", "source_id", "is_auto", "is_current", "size")

Checkpoint = Annotated[str, Field(description="The checkpoint's id, such as v3.")]


def add(toolbox: Toolbox) -> None:
    """Put the tools into ``toolbox``."""
    api = toolbox.api

    @toolbox.tool(Kind.LOOKS)
    def list_checkpoints(sprite: Name, include_automatic: bool = False) -> dict[str, Any]:
        """List checkpoints. Automatic ones were made before a restore."""
        params = {"includeAuto": "true"} if include_automatic else {}
        found = [
            {key: each[key] for key in SHOWN if each[key] not in (None, "", False)}
            for each in api.get(f"{toolbox.path(sprite)}/checkpoints", params)
            if each["id"] != "Current"
        ]
        return rows("checkpoints", found[::-1], "the newest are first")

    @toolbox.tool(Kind.ADDS)
    def create_checkpoint(sprite: Name, comment: str = "") -> str:
        """Keep the disk as it is now. Takes milliseconds, and stops nothing. Memory is not part of it."""
        body = {"comment": comment} if comment else {}
        return last_word(api.stream(f"{toolbox.path(sprite)}/checkpoint", body))

    @toolbox.tool(Kind.DESTROYS)
    def restore_checkpoint(sprite: Name, checkpoint: Checkpoint) -> str:
        """Put the whole disk back as it was, and end all processes. What is there now becomes an automatic
        checkpoint first.
        """
        path = f"{toolbox.path(sprite)}/checkpoints/{segment(checkpoint)}/restore"
        return last_word(api.stream(path))

    @toolbox.tool(Kind.DESTROYS)
    def delete_checkpoint(sprite: Name, checkpoint: Checkpoint) -> str:
        """Delete a checkpoint for good."""
        api.delete(f"{toolbox.path(sprite)}/checkpoints/{segment(checkpoint)}")
        return f"{checkpoint} is deleted"
