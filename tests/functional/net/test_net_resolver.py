"""The sprite's resolver, asked from inside a sprite, asking upstreams that only the host reaches."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from net_dns import STUB, ask_tcp, ask_udp, code_of, question, reply, resolving, upstream
from net_world import World


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {STUB}\n")
    return file


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
