"""The tool that runs commands."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, TypedDict

from pydantic import Field

from spriggan.cli.endpoint import Endpoint
from spriggan.cli.tools.bounds import Bounded
from spriggan.cli.tools.sprites import Name
from spriggan.cli.tools.toolbox import Kind, Toolbox
from spriggan.cli.websocket import open_socket
from spriggan.errors import Broken
from spriggan.wire.frames import Stream, frame

DEFAULT_SECONDS, MAX_SECONDS = 120, 3600
# Imported images may have no bash, which agents write for.
SHELL = ("/bin/sh", "-c", 'command -v bash >/dev/null && exec bash -c "$0"; exec sh -c "$0"')
CHUNK = 32 * 1024


class Outcome(TypedDict):
    """What came of a command."""

    exit_code: int | None
    stdout: str
    stderr: str
    note: str


def add(toolbox: Toolbox) -> None:
    """Put the tool into ``toolbox``."""

    @toolbox.tool(Kind.RUNS)
    async def exec_command(
        sprite: Name,
        *,
        command: Annotated[str, Field(description="A command line, run by bash (sh where there is none).")],
        directory: Annotated[
            str | None, Field(description="Where it runs; the home directory if not given.")
        ] = None,
        environment: Annotated[dict[str, str] | None, Field(description="Added to its variables.")] = None,
        stdin: Annotated[str, Field(description="Its standard input.")] = "",
        timeout_seconds: Annotated[
            int, Field(ge=1, le=MAX_SECONDS, description="After this it is ended.")
        ] = DEFAULT_SECONDS,
    ) -> Outcome:
        """Run a command in a sprite and wait for its end. Starts the sprite if it sleeps.

        Output beyond 16 KiB is left out in the middle, which is said. What is to run on is a service.
        """
        query = [*(("cmd", word) for word in (*SHELL, command)), ("tty", "false"), ("stdin", "true")]
        query += [("dir", directory)] if directory else []
        query += [("env", f"{name}={value}") for name, value in (environment or {}).items()]
        # Nobody would come back for it.
        query.append(("max_run_after_disconnect", "1s"))
        running = _Running()
        try:
            async with asyncio.timeout(timeout_seconds):
                await running.run(toolbox.api.endpoint, f"{toolbox.path(sprite)}/exec", query, stdin.encode())
        except TimeoutError:
            note = f"It had not ended after {timeout_seconds} s, and was ended."
            return running.outcome(None, note)
        return running.outcome(running.exit_code, "")


class _Running:
    """One command and what it has said so far."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._output = {Stream.STDOUT: Bounded(), Stream.STDERR: Bounded()}

    async def run(self, endpoint: Endpoint, path: str, query: list[tuple[str, str]], data: bytes) -> None:
        """Start it, give it ``data``, and listen to its end."""
        async with await open_socket(endpoint, path, query) as socket:

            async def give() -> None:
                for start in range(0, len(data), CHUNK):
                    await socket.send(frame(Stream.STDIN, data[start : start + CHUNK]))
                await socket.send(frame(Stream.STDIN_EOF, b""))

            giving = asyncio.ensure_future(give())
            try:
                async for message in socket:
                    self._hear(message)
                    if self.exit_code is not None:
                        return
            finally:
                giving.cancel()
                await asyncio.gather(giving, return_exceptions=True)
        raise Broken(
            "the connection was lost before the command ended", hint="look at what it has done, and try again"
        )

    def _hear(self, message: str | bytes) -> None:
        if isinstance(message, str):
            said: Any = json.loads(message)
            if said.get("type") == "error":
                raise Broken(str(said.get("message") or said.get("error")), hint=str(said.get("hint") or ""))
        elif message and message[0] == Stream.EXIT and len(message) > 1:
            self.exit_code = message[1]
        elif message and message[0] in (Stream.STDOUT, Stream.STDERR):
            self._output[Stream(message[0])].add(message[1:])

    def outcome(self, exit_code: int | None, note: str) -> Outcome:
        """What there is to tell."""
        return Outcome(
            exit_code=exit_code,
            stdout=self._output[Stream.STDOUT].text(),
            stderr=self._output[Stream.STDERR].text(),
            note=note,
        )
