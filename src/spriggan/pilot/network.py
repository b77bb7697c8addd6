"""The sprite's network as seen from inside: connections into it, and what listens there.

A socket belongs for good to the network namespace of the thread that made it. So a thread that
joined the sprite's makes it, and the event loop uses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterator

from spriggan.linux import listeners, namespaces
from spriggan.linux.listeners import Listener
from spriggan.linux.process import inner_pid
from spriggan.pilot.capture import capture
from spriggan.pilot.process import Container, ExecError, Process

CONNECT_TIMEOUT_S = 8.0  # one official client gives up after 10
LISTENER_POLL_S = 0.1
RESOLVE_TIMEOUT_S = 5.0
MAX_ADDRESSES = 8
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})")
_LOCALHOST = ["127.0.0.1", "::1"]


class Network:
    """One sprite's network. ``netns`` is a descriptor of its namespace, which stays the caller's."""

    def __init__(self, netns: int, container: Container) -> None:
        self._netns = netns
        self._container = container
        self._query: socket.socket | None = None
        self._asking = asyncio.Lock()

    async def connect(self, host: str, port: int) -> socket.socket:
        """Connect to ``host`` as a program inside would; the caller closes the socket.

        Raises ``OSError``, of which a ``TimeoutError`` is one kind.
        """
        error: OSError = OSError(f"{host} has no address")
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            for address in await self._addresses(host):
                try:
                    return await self._connect(address, port)
                except OSError as failure:
                    error = failure
        raise error

    async def listeners(self) -> list[Listener]:
        """What listens for TCP connections, IPv4 before IPv6."""
        async with self._asking:
            if self._query is None:
                self._query = namespaces.in_network(self._netns, listeners.open_query)
            return await asyncio.to_thread(listeners.listening, self._query)

    async def owner(self, listener: Listener) -> int | None:
        """The process that listens, by the number that the sprite knows it by."""
        pid = await asyncio.to_thread(listeners.owner, listener.inode, self._netns)
        return None if pid is None else inner_pid(pid)

    async def await_listener(self, port: int) -> None:
        """Wait until somebody listens on ``port``."""
        while True:
            if any(listener.port == port for listener in await self.listeners()):
                return
            await asyncio.sleep(LISTENER_POLL_S)

    async def _connect(self, address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = namespaces.in_network(self._netns, lambda: socket.socket(family, socket.SOCK_STREAM))
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        except BaseException:
            made.close()
            raise
        return made

    async def _addresses(self, host: str) -> list[str]:
        """Addresses of ``host``, the likeliest first."""
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))]
        if host.lower().rstrip(".") == "localhost":
            return _LOCALHOST
        if not _NAME.fullmatch(host):
            raise OSError(f"{host[:80]!r} is neither an address nor a name")
        return await self._resolve(host)

    async def _resolve(self, host: str) -> list[str]:
        """Ask the sprite itself, for it has its own hosts file and its own resolver.

        By a process inside: the C library's ways to look up a name are libraries of the sprite's.
        """
        process = Process(["getent", "ahosts", host], {"PATH": "/usr/bin:/bin"}, "/")
        try:
            answer = await capture(self._container, process, timeout=RESOLVE_TIMEOUT_S)
        except ExecError as error:
            raise OSError(f"{host} cannot be looked up: {error.message}; use an address") from error
        return list(dict.fromkeys(_addresses_in(answer)))[:MAX_ADDRESSES]


def _addresses_in(answer: bytes) -> Iterator[str]:
    """The first word of each line, where it is an address."""
    for line in answer.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            yield str(ipaddress.ip_address((line.split() or [""])[0]))
