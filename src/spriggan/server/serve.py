"""Runs the server: one app on a TCP address and on the data directory's unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from spriggan.engine import Engine
from spriggan.errors import Conflict, InvalidRequest, InvalidValue, SprigganError
from spriggan.server.app import create_app
from spriggan.server.tunnel import MAX_HEAD, Tunnel, head_too_large, whole_response

# Streams end by being cut: sprites, their processes and sessions live on, and clients attach again.
SHUTDOWN_TIMEOUT = 3
MAX_SOCKET_PATH = 107


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
    announce: Callable[[str], None] = print_line,
    prepare: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Start ``engine``, serve it until SIGTERM or SIGINT, and close it. Sprites go on running.

    ``announce`` gets the lines for the operator: what recovery did, then where the server is.
    ``prepare`` is awaited when the engine has started and before anybody can connect.
    """
    with contextlib.ExitStack() as stack:
        # Before the engine starts: a port that is taken must not cost a recovery.
        tcp = stack.enter_context(contextlib.closing(listen_tcp(host, port)))
        await engine.start()
        try:
            for line in engine.recovery_report:
                announce(line)
            if prepare is not None:
                await prepare()
            unix = stack.enter_context(contextlib.closing(listen_unix(unix_socket)))
            stack.callback(unix_socket.unlink, missing_ok=True)
            await serve(engine, [tcp, unix], announce=announce)
        finally:
            await engine.close()


async def serve(
    engine: Engine, sockets: list[socket.socket], *, announce: Callable[[str], None] | None = None
) -> None:
    """Serve a started ``engine`` on bound ``sockets`` until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        create_app(engine),
        http=_Http,
        # uvicorn calls it like a class.
        ws=cast("type[asyncio.Protocol]", functools.partial(Tunnel, engine)),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whoever listens in front of this server does not decide who the client is.
        proxy_headers=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    server = _Server(config, announce)
    with _signals(server):
        await server.serve(sockets=sockets)


class _Http(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's HTTP, with an answer in JSON to what is no HTTP, and no head without end."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > 2 * MAX_HEAD:
                self._refuse(head_too_large())
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

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
