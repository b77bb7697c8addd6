"""The server's end of the zygote: asks for pilots."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from spriggan.errors import Broken
from spriggan.linux.mount import mount_points

START_TIMEOUT_S = 30.0


class Zygote:
    """A zygote process, started when first needed and again when it has died.

    It sees the host's mounts as they were when it started: where they are not shared (no systemd), those that
    were made later do not reach it. One that lacks what a pilot needs is replaced.
    """

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._lock = asyncio.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._mounts: set[str] = set()

    async def warm(self) -> None:
        """Start the zygote if it does not run."""
        async with self._lock:
            try:
                await self._ensure([])
            except OSError as error:
                self._forget()
                raise Broken(
                    f"The pilots' zygote does not start: {error}.", hint=f"See {self._log()}."
                ) from error

    async def fork(self, spec_file: Path, layers: Iterable[str], netns: int, report: int) -> int:
        """Have a pilot forked that sees the mounts ``layers``; return its pid.

        Raises ``Broken`` if that is impossible.
        """
        async with self._lock:
            for _ in range(2):  # a zygote that died since it was last asked is replaced once
                try:
                    connection = await self._ensure(layers)
                    return await asyncio.to_thread(_ask, connection, spec_file, [netns, report])
                except OSError as error:
                    self._forget()
                    why = error
        raise Broken(f"The pilots' zygote does not serve: {why}.", hint=f"See {self._log()}.")

    def close(self) -> None:
        """Let the zygote end. Its pilots go on."""
        self._forget()

    async def _ensure(self, layers: Iterable[str]) -> socket.socket:
        alive = self._process is not None and self._process.poll() is None
        if self._socket is not None and alive and self._mounts.issuperset(map(os.path.realpath, layers)):
            return self._socket
        self._forget()
        self._mounts = set(mount_points())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _start(theirs.fileno(), self._runtime, self._log())
        self._socket = ours
        ours.settimeout(START_TIMEOUT_S)
        if await asyncio.to_thread(ours.recv, 16) != b"ready":
            raise OSError("it ended before it was ready")
        return ours

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
            self._process = None

    def _log(self) -> Path:
        return self._runtime / "zygote.log"


def _start(connection: int, runtime: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "spriggan.pilot.zygote", str(connection), str(runtime)]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[connection],
            cwd="/",
        )


def _ask(connection: socket.socket, spec_file: Path, fds: list[int]) -> int:
    socket.send_fds(connection, [str(spec_file).encode()], fds)
    reply = connection.recv(64)
    if not reply:
        raise OSError("the zygote ended")
    return int(reply)
