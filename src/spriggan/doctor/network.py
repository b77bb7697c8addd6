"""What carries a sprite's packets: links, rules, forwarding, and whoever stands in the way."""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import struct
import time
from contextlib import ExitStack
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from spriggan.doctor.check import Place
from spriggan.doctor.finding import Finding, limited, missing, untried
from spriggan.errors import SprigganError
from spriggan.linux import namespaces
from spriggan.linux.netlink import End, Netlink
from spriggan.net import addresses, blockers, forwarding, host, nft
from spriggan.net.uplinks import host_has_ipv6

_INSTANCE = "doctor"  # whose names the tries use, in networks of their own
_RESOLV_CONF = Path("/etc/resolv.conf")
_PATIENCE = 1.5  # seconds that a sprite's resolver waits for one upstream

# What the router beside a sprite needs beyond the host's rules.
_ROUTER = """\
table inet doctor_router {
    set allowed {
        type ipv4_addr
        flags timeout
        size 65535
    }

    chain input {
        type filter hook input priority filter; policy drop;
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        meta l4proto tcp reject with tcp reset
        reject with icmpx type admin-prohibited
    }

    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state new ct count over 1024 reject with icmpx type admin-prohibited
    }
}
"""


def rules(place: Place) -> Finding | str:
    """All the rules of a server, in a network namespace of their own."""
    script = host.rules("spriggan_doctor", _INSTANCE) + _ROUTER
    namespaces.in_new_network(lambda: nft.apply(script))
    return "filters, sets, connection tracking and masquerading"


def links(place: Place) -> Finding | str:
    """A pair of interfaces, as leads from the host to each sprite, in a network namespace of its own."""
    namespaces.in_new_network(_make_pair)
    return "a veth pair was made"


def _make_pair() -> None:
    with Netlink() as netlink:
        netlink.add_veth(End("one", "02:73:70:72:00:01"), End("other", "02:73:70:72:00:02"), 1500)


def forwards(place: Place) -> Finding | str:
    """Whether packets are passed on, or the server can have them passed on."""
    setting = forwarding.SYSCTL / "ipv4/ip_forward"
    if setting.read_text().strip() == "1":
        return "on"
    if not os.access(setting, os.W_OK):
        return missing(
            f"off, and {setting} cannot be written here",
            costs="the server does not start: no packet of a sprite would be passed on",
            fix="sysctl -w net.ipv4.ip_forward=1 (on the machine itself, if this is a container)",
        )
    return "off; the server switches it on, and off again when it is taken down"


def firewall(place: Place) -> Finding | str:
    """Whose rules drop what sprites send: Docker's, ufw's, or somebody's own."""
    prefix = _interfaces(place.data)
    try:
        found = blockers.find(nft.listing("ruleset"), prefix) + blockers.find_legacy(prefix)
    except SprigganError as error:
        return untried(f"not known: {error.message}", fix=error.hint)
    if found:
        return limited(
            f"dropped by {', '.join(blocker.who for blocker in found)}",
            costs="sprites do not reach the Internet",
            fix=" && ".join(blocker.fix for blocker in found),
        )
    return "nobody's rules keep sprites from the Internet"


def ipv6(place: Place) -> Finding | str:
    """A global address of the host's own, with a route: only then do sprites get IPv6."""
    with Netlink() as netlink:
        if host_has_ipv6(netlink):
            return "sprites get IPv6 as the host has it"
    fix = "nothing, if the network has no IPv6; 'ip -6 addr; ip -6 route' shows what there is"
    disabled = forwarding.SYSCTL / "ipv6/conf/default/disable_ipv6"
    if disabled.exists() and disabled.read_text().strip() != "0":
        fix = "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"
    return missing(
        "the host has no global IPv6 address with a route",
        costs="sprites reach the Internet by IPv4 only",
        fix=fix,
    )


def dns(place: Place) -> Finding | str:
    """A question to each name server that a sprite's would be handed on to."""
    try:
        servers = upstreams(_RESOLV_CONF.read_text(errors="replace"))
    except FileNotFoundError:
        servers = upstreams("")
    answered = ask(servers, _PATIENCE)
    silent = [server for server in servers if server not in answered]
    if not silent:
        return f"answered by {', '.join(servers)}"
    costs = "names are not resolved in sprites"
    if answered:
        costs = "resolving a name in a sprite may take seconds more"
    return limited(
        f"no answer from {', '.join(silent)}",
        costs=costs,
        fix=f"name servers that answer in {_RESOLV_CONF}; 'getent hosts example.com' tries them",
    )


def upstreams(resolv_conf: str) -> list[str]:
    """The name servers that a sprite's resolver asks (the same as pilot/inner/resolver.py: a test says so)."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ip_address(words[1])
            except ValueError:
                continue
            found.append(words[1])
    return found[:3] or ["127.0.0.1"]


def ask(servers: list[str], patience: float, port: int = 53) -> set[str]:
    """Ask each for the name servers of the root; return those that answer within ``patience`` seconds."""
    answered: set[str] = set()
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        waiting: dict[socket.socket, tuple[str, bytes]] = {}
        for server in servers:
            ident = secrets.token_bytes(2)
            try:
                asked = stack.enter_context(_connected(server, port))
                asked.send(
                    ident + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack("!HH", 2, 1)
                )
            except OSError:
                continue
            waiting[asked] = (server, ident)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for ready in select.select(list(waiting), [], [], left)[0]:
                server, ident = waiting.pop(ready)
                try:
                    if ready.recv(4096)[:2] == ident:
                        answered.add(server)
                except OSError:  # nobody listens there
                    continue
    return answered


def _connected(server: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if isinstance(ip_address(server), IPv6Address) else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        made.connect((server, port))
    except OSError:
        made.close()
        raise
    return made


def _interfaces(data: Path) -> str:
    """What the names of the sprites' interfaces start with; of any instance if there is none here yet."""
    try:
        return addresses.interface_prefix(str(json.loads((data / "instance.json").read_text())["id"]))
    except (OSError, ValueError, KeyError, TypeError):
        return addresses.interface_prefix("")[:2]
