"""DNS for tests: an upstream that the host has, and a sprite's resolver in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from net_world import Sprite, World

from spriggan.linux import namespaces
from spriggan.pilot.inner.dns import labels
from spriggan.pilot.inner.egress import Egress
from spriggan.pilot.inner.resolver import Resolver

STUB = "127.0.0.53"
Reply = Callable[[bytes], "list[bytes]"]


def question(name: str, *, kind: int = 1, edns: int | None = None) -> bytes:
    message = struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, edns is not None) + labels(name)
    message += struct.pack("!HH", kind, 1)
    return message + (struct.pack("!BHHIH", 0, 41, edns, 0, 0) if edns is not None else b"")


def reply(
    query: bytes, *, records: int = 1, code: int = 0, flags: int = 0x8180, address: str = "203.0.113.9"
) -> bytes:
    """An answer of as many A records."""
    end = query.index(b"\0", 12) + 5
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(address)
    return query[:2] + struct.pack("!5H", flags | code, 1, records, 0, 0) + query[12:end] + record * records


@contextmanager
def upstream(netns: int, address: str, answer: Reply) -> Iterator[list[bytes]]:
    """A DNS server in ``netns``; yields the queries it got."""
    got: list[bytes] = []

    def open_all() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for sock in (udp, tcp):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, 53))
        tcp.listen()
        return udp, tcp

    def serve_udp() -> None:
        with contextlib.suppress(OSError):
            while True:
                query, peer = udp.recvfrom(65535)
                if not peer:
                    return
                got.append(query)
                for message in answer(query):
                    udp.sendto(message, peer)

    def serve_tcp() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = tcp.accept()
                with connection:
                    query = connection.recv(65535)[2:]
                    got.append(query)
                    for message in answer(query):
                        connection.sendall(len(message).to_bytes(2) + message)

    udp, tcp = namespaces.in_network(netns, open_all)
    threads = [threading.Thread(target=work, daemon=True) for work in (serve_udp, serve_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield got
    finally:
        for sock in (udp, tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def resolving(
    world: World, sprite: Sprite, resolv_conf: Path, egress: Egress | None = None
) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Run a resolver in the sprite's router namespace, as the pilot does; yields a way to run more there."""
    ready, end = threading.Event(), threading.Event()
    failures: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        resolver = Resolver("dev", resolv_conf=resolv_conf, egress=egress)
        await resolver.start(world.host)
        ready.set()
        await asyncio.to_thread(end.wait)
        await resolver.close()

    def run() -> None:
        try:
            namespaces.setns(sprite.router, namespaces.CLONE_NEWNET)
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait(30)
        assert not failures
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loops[0]).result(30)
    finally:
        end.set()
        thread.join(30)
        assert not failures


def ask_udp(message: bytes, address: str = "10.0.0.2", *, timeout: float = 6) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, 53))
        sock.sendall(message)
        return sock.recv(65535)


def ask_tcp(*messages: bytes, address: str = "10.0.0.2") -> list[bytes]:
    with socket.create_connection((address, 53), timeout=6) as sock, sock.makefile("rb") as file:
        for message in messages:
            sock.sendall(len(message).to_bytes(2) + message)
        return [file.read(int.from_bytes(file.read(2))) for _ in messages]


def code_of(answer: bytes) -> int:
    return answer[3] & 15
