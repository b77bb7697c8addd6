"""Runs the server: one app on a TCP address and on the data directory's unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import ipaddress
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spriggan.engine import Engine
from spriggan.errors import Conflict, InvalidRequest, InvalidValue, SprigganError
from spriggan.server.app import Farewell, create_app
from spriggan.server.gateway import Gateway
from spriggan.server.logins import Logins
from spriggan.server.tunnel import MAX_HEAD, Tunnel, head_too_large, whole_response
from spriggan.server.urls import Urls

# Streams end by being cut: sprites, their processes and sessions live on, and clients attach again.
SHUTDOWN_TIMEOUT = 3
WORKERS = min(32, (os.cpu_count() or 1) + 4)  # threads for what blocks: as many as Python would start in time
MAX_SOCKET_PATH = 107
LOGIN_KEY = "login.key"


def listen_address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (this machine only)."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidRequest(f"{text!r} is not HOST:PORT", hint="for example 127.0.0.1:7878 or [::1]:7878")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    return host or "127.0.0.1", int(port)


def listen_tcp(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidValue(
            f"cannot listen on {_shown(host, port)}: {error.strerror}", hint="name an address of this machine"
        ) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _notice_the_dead(bound)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _cannot_bind(error, host, port) from error
    return bound


def _notice_the_dead(bound: socket.socket) -> None:
    """Have the kernel find out, within two minutes, that the other end of a silent connection is gone.

    Accepted connections inherit it. Somebody who watches files may hear nothing for days, and would
    keep the sprite awake for ever.
    """
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        bound.setsockopt(socket.IPPROTO_TCP, option, value)


def listen_unix(path: Path) -> socket.socket:
    """A bound socket at ``path``, for its owner only.

    The lock of the data directory is held, so a socket that is there already is a dead server's.
    """
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        raise InvalidValue(
            f"the path of the socket {path} is too long",
            hint=f"use a data directory whose path has at most {MAX_SOCKET_PATH - len('/api.sock')} bytes",
        )
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        # Nobody can connect before listen(), so nobody can before this.
        path.chmod(0o600)
    except OSError:
        bound.close()
        raise
    return bound


def print_line(text: str) -> None:
    """Print at once: whoever started the server waits for these lines."""
    print(text, flush=True)


async def run(
    engine: Engine,
    *,
    host: str,
    port: int,
    unix_socket: Path,
    url: str = "",
    announce: Callable[[str], None] = print_line,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Start ``engine``, serve it until SIGTERM or SIGINT, and close it. Sprites go on running.

    ``url`` is where sprites are reached, as ``Urls.parse`` takes it; without it, at the port that is listened on.
    ``announce`` gets the lines for the operator: what recovery did, then where the server is.
    ``prepare`` is awaited when the engine has started and before anybody can connect.
    """
    await _start_threads()
    with contextlib.ExitStack() as stack:
        # Before the engine starts: a port that is taken must not cost a recovery.
        tcp = stack.enter_context(contextlib.closing(listen_tcp(host, port)))
        urls = Urls.parse(url) if url else Urls.here(tcp.getsockname()[1])
        engine.options = dataclasses.replace(engine.options, url=urls.template)
        await engine.start()
        try:
            for line in engine.recovery_report:
                announce(line)
            if prepare is not None:
                await prepare()
            unix = stack.enter_context(contextlib.closing(listen_unix(unix_socket)))
            stack.callback(unix_socket.unlink, missing_ok=True)
            logins = await asyncio.to_thread(Logins.of, engine.data / LOGIN_KEY)
            await serve(engine, [tcp, unix], urls=urls, logins=logins, announce=announce)
        finally:
            await engine.close()


async def _start_threads() -> None:
    """Start all threads that blocking work runs in.

    A thread that is started when it is needed holds up the event loop for as long as the kernel holds up all forks
    on the host; ``linux.migration`` says when that is long.
    """
    executor, barrier = ThreadPoolExecutor(WORKERS, "work"), threading.Barrier(WORKERS)
    asyncio.get_running_loop().set_default_executor(executor)
    await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(WORKERS)))


async def serve(
    engine: Engine,
    sockets: list[socket.socket],
    *,
    urls: Urls,
    logins: Logins,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve a started ``engine`` on bound ``sockets`` until SIGTERM or SIGINT."""
    gateway = Gateway(create_app(engine), engine, urls, logins)
    config = uvicorn.Config(
        Farewell(gateway),
        http=_Http,
        # uvicorn calls it like a class.
        ws=cast("type[asyncio.Protocol]", functools.partial(Tunnel, engine, gateway)),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever listens in front of this server does not decide who the client is.
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    server = _Server(config, announce)
    with _signals(server), contextlib.closing(gateway):
        await server.serve(sockets=sockets)


class _Http(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's HTTP, with an answer in JSON to what is no HTTP, and no head without end."""

    parser: httptools.HttpRequestParser
    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > 2 * MAX_HEAD:
                self._refuse(head_too_large())
                return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("This is no HTTP request.")
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self.parser.get_method() == b"CONNECT":
                self.send_400_response("CONNECT is for proxies.")
            else:
                self._stay(data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if not self._wants_another_protocol():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._wants_another_protocol():
            super().on_message_complete()

    def _wants_another_protocol(self) -> bool:
        """Whether a client would go on in another protocol than WebSocket, such as HTTP/2 without TLS."""
        return bool(self.parser.should_upgrade() and not self._should_upgrade())

    def _stay(self, rest: bytes) -> None:
        """Take the request as if it had not wished for another protocol. ``rest`` is what came behind its head.

        The parser takes all of that for the other protocol: a body would be lost, or read as a request.
        """
        head = [self.parser.get_method() + b" " + self.url]
        head.append(b" HTTP/" + self.parser.get_http_version().encode() + b"\r\n")
        head += [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def send_400_response(self, msg: str) -> None:
        self._refuse(InvalidRequest(msg.rstrip(".").lower(), hint="this port speaks HTTP/1.1, without TLS"))

    def _refuse(self, error: SprigganError) -> None:
        self.transport.write(whole_response(error))
        self.transport.close()


class _Server(uvicorn.Server):
    """Announces where it listens, and leaves signals to ``_signals``.

    uvicorn raises a signal again when it has shut down, which would end the process before
    the engine is closed.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[str], None] | None) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._announce is not None:
            places = " and ".join(_place(bound) for bound in sockets or [])
            self._announce(f"spriggan is ready on {places}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(server: uvicorn.Server) -> Iterator[None]:
    """The first SIGTERM or SIGINT asks ``server`` to end, a second one does not let it wait for anybody."""

    def end() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    loop = asyncio.get_running_loop()
    installed: list[signal.Signals] = []
    try:
        # Only the main thread has signals; tests run servers in others, and end them otherwise.
        with contextlib.suppress(ValueError, RuntimeError):
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, end)
                installed.append(number)
        yield
    finally:
        for number in installed:
            loop.remove_signal_handler(number)


def _place(bound: socket.socket) -> str:
    name: Any = bound.getsockname()
    return name if isinstance(name, str) else f"http://{_shown(name[0], name[1])}"


def _shown(host: str, port: int) -> str:
    try:
        return f"[{host}]:{port}" if ipaddress.ip_address(host).version == 6 else f"{host}:{port}"
    except ValueError:
        return f"{host}:{port}"


def _cannot_bind(error: OSError, host: str, port: int) -> Conflict | InvalidValue:
    where = _shown(host, port)
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"{where} is taken by another program",
            hint=f"choose another port with --listen, or see who has it with 'ss -ltnp sport = :{port}'",
        )
    hint = "name an address of this machine"
    if error.errno == errno.EACCES:
        hint = "ports below 1024 are for root; choose another with --listen"
    return InvalidValue(f"cannot listen on {where}: {error.strerror}", hint=hint)
