"""``spriggan proxy``."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
from contextlib import suppress

import click

from spriggan.cli.command import Command, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import Endpoint, find, segment
from spriggan.cli.forwarding import CHUNK, LOCAL, Forwarding, carry
from spriggan.cli.selection import sprite_name
from spriggan.errors import InvalidRequest

_PORTS = re.compile(r"(?:(\d{1,5}):)?(\d{1,5})")
_TARGET = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?(\d{1,5})")


@click.command("proxy", cls=Command)
@click.argument("ports", nargs=-1, metavar="[PORT | LOCAL:REMOTE]...")
@click.option("-W", "--stdio", metavar="[HOST]:PORT", help="Connect standard input and output instead.")
@sprite_option
@pass_settings
def command(settings: Settings, ports: tuple[str, ...], stdio: str | None) -> None:
    """Reach ports of a sprite at ports of this machine, until Ctrl-C.

    \b
    Example:
      spriggan proxy -s dev 8080 5433:5432
      ssh -o ProxyCommand='spriggan proxy -s dev -W :22' sprite@dev
    """
    if bool(ports) == bool(stdio):
        raise click.UsageError("give either ports or --stdio")
    path = f"/v1/sprites/{segment(sprite_name(settings))}"
    if stdio:
        host, port = _target(stdio)
        asyncio.run(_connect_stdio(find(settings), path, host, port))
        # The thread that reads standard input may sit there for ever.
        os._exit(0)
    asyncio.run(_forward(find(settings), path, [_pair(text) for text in ports]))


async def _forward(endpoint: Endpoint, path: str, pairs: list[tuple[int, int]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    forwarding = Forwarding(endpoint, path)
    try:
        for local, remote in pairs:
            listening = await forwarding.listen(local, "localhost", remote)
            click.echo(f"{LOCAL}:{listening} is port {remote} of the sprite", err=True)
        await stop.wait()
    finally:
        await forwarding.close()


async def _connect_stdio(endpoint: Endpoint, path: str, host: str, port: int) -> None:
    """Standard input and output may be files, pipes or terminals; a socket stands for them all."""
    local, remote = socket.socketpair()
    threading.Thread(target=_read_input, args=(local,), daemon=True).start()
    showing = threading.Thread(target=_write_output, args=(local,), daemon=True)
    showing.start()
    reader, writer = await asyncio.open_connection(sock=remote, limit=CHUNK)
    try:
        await carry(endpoint, path, (host, port), reader, writer)
    finally:
        writer.close()
    await asyncio.to_thread(showing.join)


def _read_input(local: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, CHUNK):
            local.sendall(data)
        local.shutdown(socket.SHUT_WR)


def _write_output(local: socket.socket) -> None:
    with suppress(OSError):
        while data := local.recv(CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


def _pair(text: str) -> tuple[int, int]:
    """``8080`` or ``3000:8080`` as (local, remote); ``0:8080`` takes a free port here."""
    match = _PORTS.fullmatch(text)
    remote = _port(text, match[2] if match else "")
    if not match or not match[1]:
        return remote, remote
    return (_port(text, match[1]) if int(match[1]) else 0), remote


def _target(text: str) -> tuple[str, int]:
    """``localhost:22``, ``[::1]:22``, ``:22`` or ``22``."""
    match = _TARGET.fullmatch(text)
    port = _port(text, match[2] if match else "")
    return ((match[1] or "localhost").strip("[]") if match else "localhost"), port


def _port(text: str, digits: str) -> int:
    if not digits or not 1 <= int(digits) <= 65535:
        raise InvalidRequest(f"{text!r} does not name a port", hint="for example: 8080, or 3000:8080")
    return int(digits)
