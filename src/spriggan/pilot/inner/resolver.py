"""The sprite's resolver: it hands questions on to the host's resolvers.

It listens beside the sprite, but asks from sockets opened in the host's network namespace:
the host's resolvers may be 127.0.0.53 or private, and a sprite can reach neither. Every
question leaves from a port and with an id of its own; what comes back must fit it.
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from spriggan.linux import namespaces
from spriggan.pilot.inner import dns, router
from spriggan.pilot.inner.egress import Egress
from spriggan.wire.policy import NetworkPolicy

PORT = 53
RESOLV_CONF = Path("/etc/resolv.conf")

_UPSTREAMS = 3  # as many as the C library looks at
_TRY_SECONDS = 1.5  # for one upstream
_TOTAL_SECONDS = 4.5  # clients give up after 5
_IDLE_SECONDS = 10.0  # of a TCP client
_PENDING = 256  # questions under way at once: a sprite must not use up the host's ports
_CONNECTIONS = 64


def upstreams_in(resolv_conf: str) -> list[str]:
    """The resolvers that a resolv.conf names; the local host if it names none, as the C library has it."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with suppress(ValueError):
                ip_address(words[1])
                found.append(words[1])
    return found[:_UPSTREAMS] or ["127.0.0.1"]


class Resolver:
    """Forwards DNS over UDP and TCP, as far as ``egress`` lets it. ``host_name`` is answered here."""

    def __init__(
        self, host_name: str = "", *, resolv_conf: Path = RESOLV_CONF, egress: Egress | None = None
    ) -> None:
        self._egress = egress or Egress(NetworkPolicy([]))
        self._own_name = dns.labels(host_name) if host_name else b""
        self._resolv_conf = resolv_conf
        self._seen: tuple[int, ...] = ()
        self._upstreams: list[str] = []
        self._opener: ThreadPoolExecutor | None = None
        self._transports: list[asyncio.DatagramTransport] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0

    async def start(self, host_netns_fd: int, addresses: Sequence[str] = router.RESOLVER_ADDRESSES) -> None:
        """Listen on port 53 of ``addresses`` in this namespace; ask from ``host_netns_fd``.

        An IPv6 address that this host cannot have is passed over.
        """
        # The one thread that lives in the host's network; the descriptor is not needed afterwards.
        self._opener = ThreadPoolExecutor(
            1, "resolver", lambda: namespaces.setns(host_netns_fd, namespaces.CLONE_NEWNET)
        )
        try:
            await asyncio.get_running_loop().run_in_executor(self._opener, lambda: None)
            for address in addresses:
                try:
                    await self._listen(address)
                except OSError as error:
                    missing = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
                    if ":" not in address or error.errno not in missing:
                        raise
        except BaseException:
            await self.close()
            raise

    @property
    def busy(self) -> bool:
        """Whether a question is being answered, or somebody is connected."""
        return bool(self._tasks)

    async def close(self) -> None:
        """Stop listening and drop what is under way."""
        for server in self._servers:
            server.close()
        for transport in self._transports:
            transport.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._servers, self._transports = [], []
        if self._opener:
            self._opener.shutdown(wait=False)
            self._opener = None

    async def _listen(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self), local_addr=(address, PORT)
        )
        self._transports.append(transport)
        self._servers.append(await asyncio.start_server(self._converse, address, PORT))

    def take(self, message: bytes, client: tuple[str, int], transport: asyncio.DatagramTransport) -> None:
        """Answer one datagram, some time."""
        if len(self._tasks) >= _PENDING:
            return  # the client asks again

        async def respond() -> None:
            if answer := await self._answer(message, tcp=False):
                transport.sendto(answer, client)

        self._track(asyncio.create_task(respond()))

    def _track(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a TCP client's questions, one after the other."""
        if self._connections >= _CONNECTIONS:
            writer.close()
            return
        task = asyncio.current_task()
        assert task  # noqa: S101 - for mypy: start_server runs this in a task
        self._track(task)
        self._connections += 1
        try:
            while True:
                async with asyncio.timeout(_IDLE_SECONDS):
                    message = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                answer = await self._answer(message, tcp=True)
                if answer is None:
                    return
                writer.write(len(answer).to_bytes(2) + answer)
                async with asyncio.timeout(_IDLE_SECONDS):
                    await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            return
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, message: bytes, *, tcp: bool) -> bytes | None:
        """The answer to a client's message; None where silence is right."""
        try:
            query = dns.parse_query(message)
        except dns.Malformed:
            return dns.complaint(message)
        if query.flags & dns.OPCODE or query.type in (dns.AXFR, dns.IXFR):
            return dns.failure(query, dns.NOTIMP)
        if self._own_name and query.name == self._own_name and query.cls == dns.IN:
            return dns.own_name_answer(query)
        if not self._egress.allows(query.name):
            return dns.failure(query, dns.REFUSED)
        answer = await self._admitted(message, query, tcp=tcp)
        if answer is None:
            return dns.failure(query, dns.SERVFAIL)
        return dns.fitted(answer, query, 65535 if tcp else query.udp_size)

    async def _admitted(self, message: bytes, query: dns.Query, *, tcp: bool) -> bytes | None:
        """An upstream's answer, of which the sprite may reach the addresses."""
        answer = await self._forward(message, query, tcp=tcp)
        if answer is not None:
            try:
                await self._egress.admit(answer)
            except (OSError, dns.Malformed):
                return None
        return answer

    async def _forward(self, message: bytes, query: dns.Query, *, tcp: bool) -> bytes | None:
        """Ask the upstreams in turn, again if none answered; return the best answer."""
        ask = self._ask_tcp if tcp else self._ask_udp
        refusal = None
        with suppress(TimeoutError):
            async with asyncio.timeout(_TOTAL_SECONDS):
                for _ in range(2):
                    for upstream in self._current_upstreams():
                        try:
                            async with asyncio.timeout(_TRY_SECONDS):
                                answer = await ask(upstream, message, query)
                        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
                            self._move_back(upstream)
                            continue
                        if answer[3] & dns.RCODE not in (dns.SERVFAIL, dns.REFUSED, dns.NOTIMP):
                            return answer
                        refusal = refusal or answer
                    if refusal:
                        break
        return refusal

    async def _ask_udp(self, upstream: str, message: bytes, query: dns.Query) -> bytes:
        loop = asyncio.get_running_loop()
        ident = secrets.randbits(16)
        sock, address = await self._open(upstream, socket.SOCK_DGRAM)
        with sock:
            await loop.sock_connect(sock, address)  # the kernel takes only this sender's datagrams
            await loop.sock_sendall(sock, ident.to_bytes(2) + message[2:])
            while True:
                answer = await loop.sock_recv(sock, 65535)
                if dns.is_answer(answer, ident, query):
                    return answer

    async def _ask_tcp(self, upstream: str, message: bytes, query: dns.Query) -> bytes:
        ident = secrets.randbits(16)
        sock, address = await self._open(upstream, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
            reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            writer.write(len(message).to_bytes(2) + ident.to_bytes(2) + message[2:])
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        finally:
            writer.close()
        if not dns.is_answer(answer, ident, query):
            raise OSError(errno.EBADMSG, f"{upstream} answered another question")
        return answer

    async def _open(self, upstream: str, kind: int) -> tuple[socket.socket, tuple[str, int]]:
        """Open a socket in the host's network for ``upstream``."""

        def open_there() -> tuple[socket.socket, tuple[str, int]]:
            # A scope (fe80::1%eth0) means something only there.
            family, _, _, _, address = socket.getaddrinfo(
                upstream, PORT, type=kind, flags=socket.AI_NUMERICHOST
            )[0]
            sock = socket.socket(family, kind)
            sock.setblocking(False)
            return sock, address  # type: ignore[return-value]

        assert self._opener  # noqa: S101 - for mypy: set between start and close
        return await asyncio.get_running_loop().run_in_executor(self._opener, open_there)

    def _current_upstreams(self) -> list[str]:
        """The host's resolvers, read again when their file has changed."""
        try:
            status = self._resolv_conf.stat()
            seen = (status.st_ino, status.st_dev, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._upstreams = upstreams_in(self._resolv_conf.read_text(errors="replace"))
                self._seen = seen
        except OSError:
            self._upstreams = self._upstreams or upstreams_in("")
        return list(self._upstreams)

    def _move_back(self, upstream: str) -> None:
        """Ask ``upstream`` last from now on: a dead one must not slow down every question."""
        if upstream in self._upstreams:
            self._upstreams.remove(upstream)
            self._upstreams.append(upstream)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._resolver.take(data, addr, self._transport)
