"""Clients of a pilot, as close to the wire as tests need them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed

Query = list[tuple[str, str]]


@dataclass
class Done:
    """What a client saw of a command."""

    texts: list[dict[str, Any]] = field(default_factory=list)
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    raw: bytearray = field(default_factory=bytearray)  # binary messages of a terminal
    exit: int | None = None
    close: int | None = None

    @property
    def info(self) -> dict[str, Any]:
        return self.texts[0]


def query(*argv: str, **parameters: str) -> str:
    parameters = {"stdin": "true"} | parameters
    pairs: Query = [("cmd", word) for word in argv]
    return "/exec?" + urlencode(pairs + list(parameters.items()))


@dataclass(frozen=True)
class Pilot:
    """A pilot that runs."""

    directory: Path
    port: int
    pid: int  # of the process that started its namespace

    @property
    def socket(self) -> Path:
        return self.directory / "pilot.sock"

    @asynccontextmanager
    async def connect(self, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
        async with unix_connect(
            str(self.socket), uri=f"ws://pilot{path}", compression=None, max_size=None, **options
        ) as connection:
            yield connection

    async def run(
        self, *argv: str, stdin: bytes | None = None, timeout: float = 20, **parameters: str
    ) -> Done:
        """Run a command to its end; ``stdin`` None sends the end of input at once."""
        async with asyncio.timeout(timeout), self.connect(query(*argv, **parameters)) as socket:
            if parameters.get("tty") != "true":
                with suppress(ConnectionClosed):  # a command may be over before it has its input
                    if stdin:
                        await socket.send(b"\0" + stdin)
                    await socket.send(b"\x04")
            return await finish(socket, tty=parameters.get("tty") == "true")

    @property
    def own_pid(self) -> int:
        """Of the pilot's own process."""
        [init] = _children(self.pid)
        return init

    def resident(self) -> int:
        """Bytes of memory that belong to the pilot's own process alone."""
        return sum(
            int(line.split()[1]) * 1024
            for line in Path(f"/proc/{self.own_pid}/smaps_rollup").read_text().splitlines()
            if line.startswith("Private_")
        )


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def finish(socket: ClientConnection, *, tty: bool = False) -> Done:
    """Read messages until the socket is closed."""
    done = Done()
    with suppress(ConnectionClosed):  # what iteration raises for any code but 1000
        async for message in socket:
            take(done, message, tty=tty)
    done.close = socket.close_code
    return done


async def until(socket: ClientConnection, wanted: bytes, *, tty: bool = False) -> Done:
    """Read messages until ``wanted`` has been put out."""
    done = Done()
    output = done.raw if tty else done.stdout
    while output.find(wanted, max(0, len(output) - 100_000)) < 0:
        take(done, await socket.recv(), tty=tty)
    return done


def take(done: Done, message: str | bytes, *, tty: bool) -> None:
    if isinstance(message, str):
        text = json.loads(message)
        done.texts.append(text)
        if text["type"] == "exit":
            done.exit = text["exit_code"]
    elif tty:
        done.raw += message
    elif message[0] == 1:
        done.stdout += message[1:]
    elif message[0] == 2:
        done.stderr += message[1:]
    else:
        assert message[0] == 3
        assert len(message) == 2
        assert done.exit is None
        done.exit = message[1]
