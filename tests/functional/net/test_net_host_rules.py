"""The host's table: set, missed, removed; forwarding as it was; who blocks forwarding."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from net_world import FAR4, World, ask, nft, reach
from pyroute2 import IPRoute

from spriggan.linux import namespaces
from spriggan.net.host import HostRules

SYSCTL = Path("/proc/sys/net")
FORWARDING = (
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "ipv4/conf/eth0/forwarding",
    "ipv6/conf/eth0/forwarding",
)


def forwarding() -> list[str]:
    return [(SYSCTL / name).read_text().strip() for name in FORWARDING]


def test_installing_twice_changes_nothing_and_a_flush_is_noticed(world: World) -> None:
    def list_table() -> str:
        return subprocess.run(
            ["nft", "list", "table", "inet", world.rules.table], capture_output=True, text=True, check=True
        ).stdout

    before = world.on_host(list_table)
    world.on_host(world.rules.install)
    assert world.on_host(list_table) == before
    assert world.on_host(world.rules.present)
    world.on_host(lambda: nft("flush ruleset"))
    assert not world.on_host(world.rules.present)
    world.on_host(world.rules.install)
    assert world.on_host(list_table) == before


def test_forwarding_is_put_back_by_the_last_instance(world: World) -> None:
    other = HostRules("other123", runtime=world.runtime)
    world.on_host(world.rules.remove)

    def as_on_a_fresh_machine() -> None:  # a new namespace may start with what the machine has now
        for name in FORWARDING:
            (SYSCTL / name).write_text("0")
        (SYSCTL / "ipv6/conf/eth0/forwarding").write_text("1")

    world.on_host(as_on_a_fresh_machine)
    before = world.on_host(forwarding)
    assert before == ["0", "0", "0", "1"]

    world.on_host(world.rules.install)
    world.on_host(other.install)
    assert world.on_host(forwarding) == ["1"] * 4
    world.on_host(world.rules.remove)
    assert world.on_host(forwarding) == ["1"] * 4
    assert not world.on_host(world.rules.present)
    world.on_host(other.remove)
    assert world.on_host(forwarding) == before
    world.on_host(other.remove)
    assert world.on_host(forwarding) == before
    assert not (world.runtime / "forwarding.json").exists()


def test_forwarding_that_was_on_stays_on(world: World) -> None:
    world.on_host(world.rules.remove)
    world.on_host(lambda: (SYSCTL / "ipv4/ip_forward").write_text("1"))
    world.on_host(world.rules.install)
    world.on_host(world.rules.remove)
    assert world.on_host(forwarding)[0] == "1"


def test_interfaces_that_come_and_go_are_no_obstacle(world: World) -> None:
    """Those of sprites do, also when a server starts: the kernel is still taking down what a dead one left."""
    over = threading.Event()

    def come_and_go() -> None:
        with IPRoute() as ipr:
            while not over.is_set():
                for number in range(20):
                    ipr.link("add", ifname=f"brief{number}", kind="veth", peer=f"other{number}")
                for number in range(20):
                    ipr.link("del", index=socket.if_nametoindex(f"brief{number}"))

    with ThreadPoolExecutor(1) as beside:
        other = beside.submit(world.on_host, come_and_go)
        try:
            for _ in range(100):
                world.on_host(world.rules.install)
        finally:
            over.set()
        other.result()


def test_a_host_that_lives_on_router_advertisements_keeps_its_route(world: World) -> None:
    accept_ra = SYSCTL / "ipv6/conf/eth0/accept_ra"

    def advertise() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
            index = socket.if_nametoindex("eth0")
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sock.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))

    def learned() -> bool:
        lines = Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()
        return any(line.split()[9] == "eth0" and int(line.split()[8], 16) & 0x40000 for line in lines)

    world.on_host(world.rules.remove)
    assert world.on_host(accept_ra.read_text) == "1\n"
    deadline = time.monotonic() + 5  # the far side's link-local address is tentative at first
    while not world.on_host(learned) and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            namespaces.in_network(world.far, advertise)
        time.sleep(0.1)
    assert world.on_host(learned)
    world.on_host(world.rules.install)
    assert world.on_host(accept_ra.read_text) == "2\n"
    assert world.on_host(learned)
    world.on_host(world.rules.remove)
    assert world.on_host(accept_ra.read_text) == "1\n"


def test_nobody_blocks_on_a_fresh_host(world: World) -> None:
    assert world.on_host(world.rules.forward_blockers) == []


@pytest.mark.parametrize(
    ("who", "chains"),
    [
        ("Docker (iptables)", ["DOCKER", "DOCKER-USER"]),
        ("ufw", ["ufw-before-forward"]),
        ("iptables FORWARD policy", []),
    ],
)
def test_a_forward_policy_of_drop_is_named_and_its_fix_works(
    world: World, who: str, chains: list[str]
) -> None:
    if not shutil.which("iptables"):
        pytest.skip("needs iptables")

    def block() -> None:
        subprocess.run(["iptables", "-P", "FORWARD", "DROP"], check=True)
        for chain in chains:
            subprocess.run(["iptables", "-N", chain], check=True)
            subprocess.run(["iptables", "-A", "FORWARD", "-j", chain], check=True)

    with world.sprite(910) as sprite:
        world.on_host(block)
        with pytest.raises(TimeoutError):
            sprite.run(lambda: ask(FAR4))
        (blocker,) = world.on_host(world.rules.forward_blockers)
        assert blocker.who == who
        if who == "ufw":  # the program is not asked for: its command is only compared
            assert blocker.fix == f"ufw route allow in on sg{world.instance[:4]}-+"
            return
        world.on_host(lambda: subprocess.run(blocker.fix, shell=True, check=True))
        assert sprite.run(lambda: reach(FAR4))
        assert world.on_host(world.rules.forward_blockers) == []


def test_iptables_legacy_is_looked_at(world: World) -> None:
    if not shutil.which("iptables-legacy-save"):
        pytest.skip("needs iptables-legacy")

    def block() -> bool:
        return not subprocess.run(["iptables-legacy", "-P", "FORWARD", "DROP"], check=False).returncode

    if not world.on_host(block):
        pytest.skip("needs a kernel with ip_tables")
    (blocker,) = world.on_host(world.rules.forward_blockers)
    assert "iptables-legacy" in blocker.fix
    world.on_host(lambda: subprocess.run(blocker.fix, shell=True, check=True))
    assert world.on_host(world.rules.forward_blockers) == []


def test_tables_of_nftables_and_firewalld_are_named(world: World) -> None:
    world.on_host(
        lambda: nft(
            """
            table inet mine { chain out { type filter hook forward priority 5; policy drop; }; }
            table inet firewalld {
                chain filter_FORWARD {
                    type filter hook forward priority 10; policy accept;
                    ct state established,related accept
                    reject with icmpx type admin-prohibited
                }
            }
            """
        )
    )
    found = dict(world.on_host(world.rules.forward_blockers))
    assert set(found) == {"nftables table inet mine", "firewalld"}
    assert "--add-interface=sg" in found["firewalld"]
