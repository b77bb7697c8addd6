"""A network policy: what it lets through, at once and for connections that exist."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from net_dns import STUB, ask_udp, code_of, question, reply, resolving, upstream
from net_world import FAR4, FAR6, PORT, World, ask, reach

from proof import PLAIN, proves
from spriggan.linux import namespaces
from spriggan.pilot.inner.egress import Egress
from spriggan.wire.policy import NetworkPolicy

REFUSED = 5
ALLOW_GOOD = [{"domain": "*.good.example", "action": "allow"}]


@pytest.fixture
def guarded(world: World, tmp_path: Path) -> Iterator[Any]:
    """A sprite, its egress, and a way to change its rules; every name leads to the far side."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {STUB}\n")
    egress = Egress(NetworkPolicy([]))
    with (
        upstream(world.host, STUB, lambda query: [reply(query, address=FAR4)]) as asked,
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf, egress) as run,
    ):
        yield sprite, lambda rules: run(egress.apply(NetworkPolicy(rules))), asked


@proves("policy/network: a denied name is REFUSED", PLAIN)
@proves("policy/network: raw addresses are reached only by a name that is allowed", PLAIN)
def test_an_address_is_reached_only_by_a_name_that_is_allowed(guarded: Any) -> None:
    sprite, apply, asked = guarded
    assert sprite.run(lambda: reach(FAR4))
    apply(ALLOW_GOOD)
    for udp in (False, True):
        with pytest.raises(OSError):
            sprite.run(lambda udp=udp: ask(FAR4, udp=udp))
    assert code_of(sprite.run(lambda: ask_udp(question("evil.example")))) == REFUSED
    assert code_of(sprite.run(lambda: ask_udp(question("good.example")))) == REFUSED  # not below itself
    assert not asked  # nothing of it left the host
    with pytest.raises(OSError):
        sprite.run(lambda: ask(FAR4))
    answer = sprite.run(lambda: ask_udp(question("A.Good.Example")))
    assert code_of(answer) == 0 and answer.endswith(socket.inet_aton(FAR4))
    assert sprite.run(lambda: reach(FAR4)) and sprite.run(lambda: reach(FAR4, udp=True))
    with pytest.raises(OSError):  # the other family's address was never an answer
        sprite.run(lambda: ask(FAR6))
    apply([])
    assert sprite.run(lambda: reach(FAR4)) and sprite.run(lambda: reach(FAR6))


@proves("policy/network: a change ends connections that are no longer allowed", PLAIN)
def test_a_change_ends_what_is_no_longer_allowed(world: World, guarded: Any) -> None:
    sprite, apply, _ = guarded
    apply(ALLOW_GOOD)
    sprite.run(lambda: ask_udp(question("a.good.example")))
    listener = namespaces.in_network(world.far, lambda: socket.create_server((FAR4, PORT + 1)))
    mine, theirs = socket.socketpair()

    def talk() -> bool:
        with socket.create_connection((FAR4, PORT + 1), timeout=30) as connection:
            connection.sendall(b"1")
            assert connection.recv(1) == b"1"
            theirs.sendall(b"x")  # the policy changes now
            theirs.recv(1)
            connection.settimeout(0.5)
            try:
                connection.sendall(b"2")
                return connection.recv(1) == b"2"
            except OSError:
                return False

    def echo() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(1):
                connection.sendall(data)

    echoing = threading.Thread(target=echo, daemon=True)
    echoing.start()

    def change() -> None:
        mine.recv(1)
        apply([{"domain": "other.example", "action": "allow"}])
        mine.sendall(b"x")

    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    assert sprite.run(talk) is False
    changing.join(30)
    listener.close()


def test_the_same_policy_again_keeps_nothing_open_by_accident(guarded: Any) -> None:
    sprite, apply, _ = guarded
    apply(ALLOW_GOOD)
    sprite.run(lambda: ask_udp(question("a.good.example")))
    assert sprite.run(lambda: reach(FAR4))
    apply(ALLOW_GOOD)
    with pytest.raises(OSError):  # it must be looked up again
        sprite.run(lambda: ask(FAR4))
    sprite.run(lambda: ask_udp(question("a.good.example")))
    assert sprite.run(lambda: reach(FAR4))


def test_an_allowed_name_does_not_open_what_is_private(world: World, tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {STUB}\n")
    egress = Egress(NetworkPolicy([]))
    with (
        upstream(world.host, STUB, lambda query: [reply(query, address="192.168.7.1")]),
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf, egress) as run,
    ):
        run(egress.apply(NetworkPolicy(ALLOW_GOOD)))
        assert code_of(sprite.run(lambda: ask_udp(question("a.good.example")))) == 0
        with pytest.raises(OSError):
            sprite.run(lambda: ask("192.168.7.1"))


def test_answers_that_cannot_be_read_are_not_handed_on(world: World, tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {STUB}\n")
    egress = Egress(NetworkPolicy([]))
    with (
        upstream(world.host, STUB, lambda query: [reply(query, records=3)[:-5]]),
        world.sprite(900) as sprite,
        resolving(world, sprite, resolv_conf, egress) as run,
    ):
        run(egress.apply(NetworkPolicy(ALLOW_GOOD)))
        assert code_of(sprite.run(lambda: ask_udp(question("a.good.example")))) == 2
