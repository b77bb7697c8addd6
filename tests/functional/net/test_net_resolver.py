"""The sprite's resolver, asked from inside a sprite, asking upstreams that only the host reaches."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from net_world import Sprite, World

from spriggan.linux import namespaces
from spriggan.pilot.inner.resolver import Resolver, labels

STUB = "127.0.0.53"
Reply = Callable[[bytes], "list[bytes]"]


def question(name: str, *, kind: int = 1, edns: int | None = None) -> bytes:
    message = struct.pack("!6H", 0x1234, 0x0100, 1, 0, 0, edns is not None) + labels(name)
    message += struct.pack("!HH", kind, 1)
    return message + (struct.pack("!BHHIH", 0, 41, edns, 0, 0) if edns is not None else b"")


def reply(query: bytes, *, records: int = 1, code: int = 0, flags: int = 0x8180) -> bytes:
    """An answer of as many A records."""
    end = query.index(b"\0", 12) + 5
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton("203.0.113.9")
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
def resolving(world: World, sprite: Sprite, resolv_conf: Path) -> Iterator[None]:
    """Run a resolver in the sprite's router namespace, as the pilot does."""
    ready, end = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    async def serve() -> None:
        resolver = Resolver("dev", resolv_conf=resolv_conf)
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
        ready.wait(5)
        assert not failures
        yield
    finally:
        end.set()
        thread.join(5)
        assert not failures


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {STUB}\n")
    return file


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


@pytest.mark.parametrize("address", ["10.0.0.2", "fdf::2"])
def test_names_are_resolved_by_an_upstream_on_the_hosts_loopback(
    world: World, resolv_conf: Path, address: str
) -> None:
    query = question("deb.example.org", edns=1232)
    with (
        upstream(world.host, STUB, lambda q: [reply(q)]) as got,
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf),
    ):
        assert sprite.run(lambda: ask_udp(query, address)) == reply(query)
        assert sprite.run(lambda: ask_tcp(query, query, address=address)) == [reply(query)] * 2
        assert {q[2:] for q in got} == {query[2:]}  # EDNS passes
        assert len({q[:2] for q in got}) > 1  # ids of the resolver's own
        with pytest.raises(OSError):  # the sprite itself cannot get there
            sprite.run(lambda: ask_udp(query, STUB, timeout=0.3))


def test_the_own_name_is_answered_without_upstreams(world: World, resolv_conf: Path) -> None:
    with world.sprite(900) as sprite, resolving(world, sprite, resolv_conf):
        assert sprite.run(lambda: ask_udp(question("DEV"))).endswith(socket.inet_aton("10.0.0.1"))


def test_no_upstream_is_servfail_soon(world: World, resolv_conf: Path) -> None:
    with world.sprite(900) as sprite, resolving(world, sprite, resolv_conf):
        assert code_of(sprite.run(lambda: ask_udp(question("a.example"), timeout=1))) == 2
        assert code_of(sprite.run(lambda: ask_tcp(question("a.example")))[0]) == 2


def test_a_silent_upstream_is_passed_over_and_then_asked_last(world: World, resolv_conf: Path) -> None:
    resolv_conf.write_text(f"nameserver 127.0.0.54\nnameserver {STUB}\n")
    with (
        upstream(world.host, "127.0.0.54", lambda q: []) as silent,
        upstream(world.host, STUB, lambda q: [reply(q)]) as good,
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf),
    ):
        for _ in range(3):
            assert code_of(sprite.run(lambda: ask_udp(question("a.example")))) == 0
        assert (len(silent), len(good)) == (1, 3)


def test_a_refusing_upstream_is_not_the_last_word(world: World, resolv_conf: Path) -> None:
    resolv_conf.write_text(f"nameserver 127.0.0.54\nnameserver {STUB}\n")
    with (
        upstream(world.host, "127.0.0.54", lambda q: [reply(q, records=0, code=5)]),
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf),
    ):
        assert code_of(sprite.run(lambda: ask_udp(question("a.example")))) == 5
        with upstream(world.host, STUB, lambda q: [reply(q, records=0, code=3)]):
            assert code_of(sprite.run(lambda: ask_udp(question("a.example")))) == 3


def test_forged_answers_are_not_taken(world: World, resolv_conf: Path) -> None:
    def forge(query: bytes) -> list[bytes]:
        other_id = ((query[0] << 8 | query[1]) ^ 1).to_bytes(2)
        return [
            b"",
            b"\xff" * 11,
            os.urandom(300),
            reply(other_id + query[2:]),
            reply(query[:2] + question("evil.example")[2:]),
            query,
            reply(query, records=2),
        ]

    with (
        upstream(world.host, STUB, forge),
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf),
    ):
        query = question("a.example")
        assert sprite.run(lambda: ask_udp(query)) == reply(query, records=2)


def test_what_does_not_fit_is_asked_again_over_tcp(world: World, resolv_conf: Path) -> None:
    with (
        upstream(world.host, STUB, lambda q: [reply(q, records=100)]),
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf),
    ):
        short = sprite.run(lambda: ask_udp(question("a.example")))
        assert len(short) <= 512
        assert short[2] & 2  # truncated
        assert not sprite.run(lambda: ask_udp(question("a.example", edns=4096)))[2] & 2
        assert len(sprite.run(lambda: ask_tcp(question("a.example")))[0]) > 1600


def test_garbage_does_not_stop_the_resolver(world: World, resolv_conf: Path) -> None:
    def flood() -> Any:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("10.0.0.2", 53))
            for _ in range(500):
                sock.send(os.urandom(50))
        for _ in range(5):
            with socket.create_connection(("10.0.0.2", 53), timeout=2) as sock:
                sock.sendall(os.urandom(100))
        bad = struct.pack("!6H", 5, 0x0100, 2, 0, 0, 0)
        for _ in range(3):  # the flood fills the socket's buffer: datagrams get lost, so clients ask again
            with contextlib.suppress(TimeoutError):
                return ask_udp(bad, timeout=1)
        raise AssertionError("no answer after the flood")

    with (
        upstream(world.host, STUB, lambda q: [reply(q)]),
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf),
    ):
        assert code_of(sprite.run(flood)) == 1
        assert code_of(sprite.run(lambda: ask_udp(question("x.example", kind=252)))) == 4
        assert code_of(sprite.run(lambda: ask_udp(question("a.example")))) == 0
