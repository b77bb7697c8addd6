"""What a sprite reaches, what it does not, and who reaches it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from pathlib import Path

import pytest
from net_world import FAR4, FAR6, HOST4, HOST6, MTU, PRIVATE, World, ask, nft, ping, reach
from pyroute2 import IPRoute

from proof import PLAIN, proves
from spriggan.linux import namespaces
from spriggan.net import addresses
from spriggan.net.uplinks import Uplinks, pair_is_free
from spriggan.pilot.inner import router

SLOT, OTHER = 900, 901


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize(("far", "host"), [(FAR4, HOST4), (FAR6, HOST6)])
def test_a_sprite_reaches_the_internet_as_the_host(world: World, far: str, host: str, udp: bool) -> None:
    with world.sprite(SLOT) as sprite:
        assert sprite.run(lambda: reach(far, udp=udp)) == host
        assert sprite.run(lambda: ping(far))


def test_the_inner_network_is_what_the_sprites_api_shows(world: World) -> None:
    def look() -> tuple[set[tuple[str, str, int]], dict[str, int], set[tuple[int, str]]]:
        with IPRoute() as ipr:
            names = {link["index"]: link.get("ifname") for link in ipr.get_links()}
            found = {(names[a["index"]], a.get("address"), a["prefixlen"]) for a in ipr.get_addr()}
            mtus = {link.get("ifname"): link.get("mtu") for link in ipr.get_links()}
            gates = {(r["family"], r.get("gateway")) for r in ipr.get_routes() if r.get("gateway")}
            return found, mtus, gates

    with world.sprite(SLOT) as sprite:
        found, mtus, gates = sprite.run(look)
    assert {("spr0", "10.0.0.1", 24), ("spr0", "fdf::1", 64), ("lo", "127.0.0.1", 8)} <= found
    assert mtus["spr0"] == MTU == sprite.uplink.mtu
    assert gates == {(socket.AF_INET, "10.0.0.2"), (socket.AF_INET6, "fdf::2")}


@proves("network: private addresses are out of reach, with no policy, too", PLAIN)
@pytest.mark.parametrize(
    "target", [HOST4, HOST6, "192.168.7.2", PRIVATE, "169.254.169.254", "fe80::1", "fd00::1"]
)
def test_a_sprite_reaches_neither_the_host_nor_private_addresses(world: World, target: str) -> None:
    with world.sprite(SLOT) as sprite:
        gateway = sprite.uplink.ipv6_gateway if ":" in target else sprite.uplink.ipv4_gateway
        for address in (target, gateway):
            for udp in (False, True):
                with pytest.raises(OSError):
                    sprite.run(lambda address=address, udp=udp: ask(address, udp=udp))
            assert not sprite.run(lambda address=address: ping(address))


def test_a_private_address_is_refused_at_once(world: World) -> None:
    with world.sprite(SLOT) as sprite:
        waited = []
        for _ in range(3):
            start = time.monotonic()
            with pytest.raises(OSError) as error:
                sprite.run(lambda: ask(PRIVATE, timeout=10))
            assert error.value.errno == errno.EHOSTUNREACH
            waited.append(time.monotonic() - start)
        assert min(waited) < 1  # a neighbour that nobody answers for is given up after 3 s


def test_without_an_ipv6_internet_a_sprite_does_not_wait_for_one(world: World) -> None:
    def only_local_ipv6() -> None:
        with IPRoute() as ipr:
            index = socket.if_nametoindex("eth0")
            ipr.addr("del", index=index, address=HOST6, prefixlen=64)
            ipr.addr("add", index=index, address="fd00:1::2", prefixlen=64, flags=2)
            ipr.route("replace", dst="::/0", gateway="fd00:1::1")

    world.on_host(only_local_ipv6)
    with world.sprite(SLOT) as sprite:
        assert sprite.uplink.ipv6 == ""
        with pytest.raises(OSError) as error:
            sprite.run(lambda: ask("2001:db8:1::1"))
        assert error.value.errno == errno.ENETUNREACH
        assert sprite.run(lambda: ping("fdf::2"))
        assert sprite.run(lambda: reach(FAR4)) == HOST4


def test_127_0_0_1_is_the_sprites_own(world: World) -> None:
    with world.sprite(SLOT) as sprite, pytest.raises(ConnectionRefusedError):
        sprite.run(lambda: ask("127.0.0.1"))


@pytest.mark.parametrize("target", [HOST4, HOST6, "192.168.7.2", PRIVATE, "gateway4", "gateway6"])
def test_the_hosts_wall_stands_without_the_routers(world: World, target: str) -> None:
    """From the router namespace itself, past the router's forward rules."""
    with world.sprite(SLOT) as sprite:
        named = {"gateway4": sprite.uplink.ipv4_gateway, "gateway6": sprite.uplink.ipv6_gateway}
        address = named.get(target, target)
        assert sprite.run_in_router(lambda: reach(FAR6 if ":" in address else FAR4))
        with pytest.raises(TimeoutError):
            sprite.run_in_router(lambda: ask(address))
        assert not sprite.run_in_router(lambda: ping(address))


def test_the_host_drops_forged_senders(world: World) -> None:
    with world.sprite(SLOT) as sprite:

        def forge() -> str:
            nft("flush ruleset")  # the router itself would put its own address
            with IPRoute() as ipr:
                index = socket.if_nametoindex("uplink0")
                ipr.addr("add", index=index, address="203.0.113.7", prefixlen=32)
                ipr.route(
                    "replace", dst="0.0.0.0/0", gateway=sprite.uplink.ipv4_gateway, prefsrc="203.0.113.7"
                )
            return ask(FAR4)

        with pytest.raises(TimeoutError):
            sprite.run_in_router(forge)


def test_two_sprites_do_not_reach_each_other(world: World) -> None:
    with world.sprite(SLOT) as one, world.sprite(OTHER) as other:
        targets = [
            str(getattr(addresses.router_end(world.instance, OTHER), kind)) for kind in ("ipv4", "ipv6")
        ]
        for target in targets:
            for run in (one.run, one.run_in_router):
                with pytest.raises(OSError):
                    run(lambda target=target: ask(target))
                assert not run(lambda target=target: ping(target))
        assert one.run(lambda: reach(FAR4)) == other.run(lambda: reach(FAR4)) == HOST4


def test_sprites_of_two_instances_do_not_reach_each_other(world: World, tmp_path: Path) -> None:
    second = World("zz" + world.instance[2:], world.host, world.far, world.runtime)
    second.on_host(second.rules.install)
    try:
        with world.sprite(SLOT) as one, second.sprite(OTHER) as other:
            for run, target in (
                (one.run_in_router, addresses.router_end(second.instance, OTHER)),
                (other.run_in_router, addresses.router_end(world.instance, SLOT)),
            ):
                assert not run(lambda target=target: ping(str(target.ipv4)))
                assert not run(lambda target=target: ping(str(target.ipv6)))
            assert one.run(lambda: reach(FAR4)) == other.run(lambda: reach(FAR4)) == HOST4
            assert one.run(lambda: reach(FAR6)) == other.run(lambda: reach(FAR6)) == HOST6
    finally:
        second.on_host(second.rules.remove)


def test_a_sprite_has_a_share_of_the_hosts_connections(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's table is for all: full, it lets nobody begin anything, not even the host itself."""

    def flood() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for port in range(9000, 12000):
                with contextlib.suppress(OSError):  # the router's words about an earlier one
                    sock.sendto(b"x", ("198.51.100.100", port))

    def tracked() -> int:
        return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())

    assert (
        router.share_of_connections()
        <= int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text()) // 8
    )
    monkeypatch.setattr(router, "share_of_connections", lambda: 500)  # a test cannot fill the real one
    with world.sprite(SLOT) as sprite, world.sprite(OTHER) as other:
        before = world.on_host(tracked)
        sprite.run(flood)
        assert 400 < world.on_host(tracked) - before < 600
        assert other.run(lambda: ask(FAR4)) == HOST4


def test_the_way_out_is_known_for_good(world: World) -> None:
    """Nobody's flood of neighbours (one table for the whole host) can push it out."""

    def neighbours() -> set[tuple[str, int]]:
        with IPRoute() as ipr:
            return {
                (entry.get("dst"), entry["state"]) for entry in ipr.get_neighbours() if entry["state"] != 0x40
            }

    with world.sprite(SLOT) as sprite:
        assert {("10.0.0.2", 0x80), ("fdf::2", 0x80)} <= sprite.run(neighbours)
        assert {("10.0.0.1", 0x80), ("fdf::1", 0x80)} <= sprite.run_in_router(neighbours)


def test_nobody_outside_reaches_a_sprite(world: World) -> None:
    with world.sprite(SLOT) as sprite:
        end = addresses.router_end(world.instance, SLOT)

        def from_far() -> list[bool]:
            with IPRoute() as ipr:
                ipr.route("add", dst="169.254.0.0/16", gateway=HOST4)
                ipr.route("add", dst=str(addresses.network6(world.instance)), gateway=HOST6)
                ipr.route("add", dst="10.0.0.0/24", gateway=HOST4)
            return [ping(str(end.ipv4)), ping(str(end.ipv6)), ping("10.0.0.1")]

        assert namespaces.in_network(world.far, from_far) == [False, False, False]
        assert sprite.run(lambda: reach(FAR4))


def test_the_router_offers_its_resolver_and_nothing_else(world: World) -> None:
    with world.sprite(SLOT) as sprite:
        assert sprite.run(lambda: ping("10.0.0.2"))
        assert sprite.run(lambda: ping("fdf::2"))
        with pytest.raises(ConnectionRefusedError):
            sprite.run(lambda: ask("10.0.0.2"))
        with pytest.raises(OSError):
            sprite.run(lambda: ask(str(addresses.router_end(world.instance, SLOT).ipv4)))


def test_the_sprite_connects_again_after_its_container_was_replaced(world: World) -> None:
    with world.sprite(SLOT) as sprite:
        with namespaces.user_namespace(addresses.first_id(SLOT), namespaces.CLONE_NEWNET) as pid:
            new = namespaces.open_namespace(pid, "net")
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, new)
            namespaces.in_network(sprite.router, lambda: router.attach(sprite.uplink, new))
            assert namespaces.in_network(new, lambda: reach(FAR4)) == HOST4
            assert namespaces.in_network(new, lambda: reach(FAR6)) == HOST6
            with pytest.raises(OSError):
                sprite.run(lambda: ask(FAR4))


def test_links_are_listed_and_go_with_their_namespace(world: World) -> None:
    uplinks = Uplinks(world.instance)
    assert world.on_host(lambda: pair_is_free(SLOT))
    with world.sprite(SLOT), world.sprite(OTHER):
        assert world.on_host(uplinks.list_links) == [SLOT, OTHER]
        assert world.on_host(Uplinks("other123").list_links) == []
        assert not world.on_host(lambda: pair_is_free(SLOT))
        world.on_host(lambda: uplinks.remove(OTHER))
        world.on_host(lambda: uplinks.remove(OTHER))
        assert world.on_host(uplinks.list_links) == [SLOT]
    deadline = time.monotonic() + 5
    while world.on_host(uplinks.list_links) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert world.on_host(uplinks.list_links) == []


def test_a_slot_can_be_used_again_at_once(world: World) -> None:
    for _ in range(5):
        with world.sprite(SLOT) as sprite:
            assert sprite.run(lambda: reach(FAR4)) == HOST4


def test_addresses_that_the_host_routes_are_not_free(world: World) -> None:
    def route() -> tuple[bool, bool]:
        end = addresses.host_end(world.instance, SLOT)
        with IPRoute() as ipr:
            ipr.route("add", dst="169.254.0.0/16", oif=socket.if_nametoindex("eth0"))
            before = pair_is_free(SLOT)
            ipr.route("add", dst=f"{end.ipv4}/32", gateway=FAR4)
            return before, pair_is_free(SLOT)

    assert world.on_host(route) == (True, False)
