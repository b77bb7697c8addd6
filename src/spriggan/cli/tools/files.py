"""Tools for files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from spriggan.cli.tools.bounds import MAX_TEXT, rows
from spriggan.cli.tools.sprites import Name
from spriggan.cli.tools.toolbox import Kind, Toolbox
from spriggan.errors import InvalidRequest

FilePath = Annotated[str, Field(description="An absolute path in the sprite.")]


def add(toolbox: Toolbox) -> None:
    """Put the tools into ``toolbox``."""
    api = toolbox.api

    @toolbox.tool(Kind.LOOKS)
    def read_file(
        sprite: Name,
        path: FilePath,
        offset: Annotated[int, Field(ge=0, description="The first byte.")] = 0,
        limit: Annotated[int, Field(ge=1, le=16 * MAX_TEXT, description="Bytes at most.")] = MAX_TEXT,
    ) -> dict[str, Any]:
        """Read a text file, or a part of it. `next_offset` is there when there is more."""
        data = bytearray()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with api.download(f"{toolbox.path(sprite)}/fs/read", {"path": path}, headers) as pieces:
            for piece in pieces:
                data += piece
                if len(data) > limit:
                    break
        part = bytes(data[:limit])
        if b"\0" in part:
            raise InvalidRequest(f"{path} is no text", hint="look at it with a command, such as xxd or file")
        text, used = _whole_characters(part)
        more = {"next_offset": offset + used} if len(data) > limit else {}
        return {"content": text, **more}

    @toolbox.tool(Kind.REPLACES)
    def write_file(
        sprite: Name,
        path: FilePath,
        content: str,
        mode: Annotated[
            str | None, Field(pattern="^[0-7]{3,4}$", description="Such as 0755; kept if not given.")
        ] = None,
    ) -> dict[str, Any]:
        """Write a text file, whole and durable; missing directories are made. Replaces what was there."""
        params = {"path": path, "mkdirParents": "true"} | ({"mode": mode} if mode else {})
        written = api.upload(f"{toolbox.path(sprite)}/fs/write", iter([content.encode()]), params)
        return {key: written[key] for key in ("path", "size", "mode")}

    @toolbox.tool(Kind.LOOKS)
    def list_files(
        sprite: Name,
        path: FilePath,
        recursive: bool = False,
        pattern: Annotated[str, Field(description="Only names like this: *.py, src/**/*.c")] = "",
    ) -> dict[str, Any]:
        """List a directory, or one file."""
        params = {"path": path} | ({"recursive": "true"} if recursive else {})
        params |= {"pattern": pattern} if pattern else {}
        found = api.get(f"{toolbox.path(sprite)}/fs/list", params)
        entries = [
            {key: entry[key] for key in ("path", "type", "size", "mode", "modTime")}
            for entry in found["entries"]
        ]
        return rows("entries", entries, "give a pattern or a deeper path")


def _whole_characters(data: bytes) -> tuple[str, int]:
    """As text, without a character at the end that was cut; and how many bytes that is."""
    for cut in range(min(4, len(data))):
        try:
            return data[: len(data) - cut].decode(), len(data) - cut
        except UnicodeDecodeError:
            continue
    return data.decode(errors="replace"), len(data)
