"""The router beside a sprite: the gateway of its network, NAT, and what may pass.

It runs in the router namespace, where the pilot lives and which holds the uplink; the
sprite's own network namespace is reached through a pair of which "spr0" is the inner end.
"""

from __future__ import annotations

import errno
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path

from spriggan import faults
from spriggan.linux import namespaces
from spriggan.linux.netlink import End, Netlink
from spriggan.wire.spec import Uplink

INNER = "spr0"
GATE = "gate0"
INNER4, GATE4 = "10.0.0.1", "10.0.0.2"
INNER6, GATE6 = "fdf::1", "fdf::2"
NETWORK4, NETWORK6 = IPv4Network("10.0.0.0/24"), IPv6Network("fdf::/64")

RESOLVER_ADDRESSES = (GATE4, GATE6)

# Not of the public Internet. The host's rules hold the same list (a test keeps them equal),
# but drop without a word; here a program learns at once that it cannot get there.
PRIVATE4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # public by number, but the Azure host's agent
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
PRIVATE6 = (
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0/96"),
    *(  # private IPv4 addresses by way of NAT64
        IPv6Network(((0x64_FF9B << 96) + int(network.network_address), 96 + network.prefixlen))
        for network in PRIVATE4
    ),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2002::/16"),  # 6to4 carries IPv4 addresses
    IPv6Network("fc00::/7"),
    IPv6Network("fe80::/10"),
    IPv6Network("fec0::/10"),
    IPv6Network("ff00::/8"),
)

_MAC = {INNER: "02:73:70:72:00:01", GATE: "02:73:70:72:00:02"}
_IPV6_MIN_MTU = 1280
_CONNTRACK_DEFAULT = 65536
_FEWEST_CONNECTIONS = 1024
_SYSCTL = Path("/proc/sys/net")


def configure(uplink: Uplink, inner_netns: int) -> None:
    """Make this network namespace the router of the sprite whose network is ``inner_netns``.

    Once for a namespace; ``attach`` is for another inner network later. Raises ``OSError`` with the cause.
    """
    with _loading(rules(uplink.interface)):  # nft works while the links are made
        attach(uplink, inner_netns)
    # On some hosts forwarding is on from the start. No matter: nothing runs in the sprite yet.
    (_SYSCTL / "ipv4/ip_forward").write_text("1")
    if _has_ipv6():
        (_SYSCTL / "ipv6/conf/all/forwarding").write_text("1")
    faults.point("pilot:router")


def attach(uplink: Uplink, inner_netns: int) -> None:
    """Connect ``inner_netns`` in place of whatever was connected before.

    The inner namespace may belong to the sprite's user namespace.
    """
    ipv6 = _has_ipv6() and uplink.mtu >= _IPV6_MIN_MTU
    _make_pair(uplink.mtu, inner_netns, ipv6=ipv6)
    namespaces.in_network(inner_netns, lambda: _set_up_inner(ipv6=ipv6, leads_out=bool(uplink.ipv6)))


def rules(uplink: str) -> str:
    """The script that makes the router's table.

    It replaces none: a deletion in the transaction makes the kernel wait for an RCU grace
    period (10 to 20 ms against 2), and this is on the way to a sprite's wake.
    """
    return f"""\
create table inet router
table inet router {{
    set private4 {{
        type ipv4_addr
        flags interval
        elements = {{ {", ".join(map(str, PRIVATE4))} }}
    }}

    set private6 {{
        type ipv6_addr
        flags interval
        elements = {{ {", ".join(map(str, PRIVATE6))} }}
    }}

    # Filled by the network policy, if there is one.
    set allowed4 {{
        type ipv4_addr
        flags timeout
        size 65535
    }}

    set allowed6 {{
        type ipv6_addr
        flags timeout
        size 65535
    }}

    chain egress {{
    }}

    chain input {{
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        iifname != "{GATE}" drop
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        jump own_source
        ip daddr {GATE4} jump service
        ip6 daddr {GATE6} jump service
        reject with icmpx type admin-prohibited
    }}

    # No answer, error or packet goes to somebody that a sprite only claims to be.
    chain own_source {{
        ip saddr != {NETWORK4} drop
        ip6 saddr != {NETWORK6} drop
    }}

    chain service {{
        meta l4proto {{ tcp, udp }} th dport 53 accept
        icmp type echo-request accept
        icmpv6 type echo-request accept
        meta l4proto tcp reject with tcp reset
    }}

    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname "{uplink}" oifname "{GATE}" ct state established,related accept
        iifname != "{GATE}" drop
        jump own_source
        ip daddr @private4 reject with icmpx type admin-prohibited
        ip6 daddr @private6 reject with icmpx type admin-prohibited
        ct state new ct count over {share_of_connections()} reject with icmpx type admin-prohibited
        jump egress
        oifname "{uplink}" accept
    }}

    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{uplink}" masquerade
    }}
}}
"""


def share_of_connections() -> int:
    """How many connections a sprite may have at a time: the host has a table for those of all."""
    try:
        most = int((_SYSCTL / "netfilter/nf_conntrack_max").read_text())
    except FileNotFoundError:  # the module is not loaded yet
        most = _CONNTRACK_DEFAULT
    return max(most // 8, _FEWEST_CONNECTIONS)


@contextmanager
def _loading(script: str) -> Iterator[None]:
    """Load ``script`` with nft while the block runs; it is loaded when the block ends."""
    with tempfile.TemporaryFile() as file:
        file.write(script.encode())
        file.seek(0)
        nft = subprocess.Popen(
            ["nft", "-f", "-"], stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    try:
        yield
    finally:
        _, complaint = nft.communicate()
    if nft.returncode:
        raise OSError(errno.EINVAL, f"nft refused the router's rules: {complaint.strip()}")


def _make_pair(mtu: int, inner_netns: int, *, ipv6: bool) -> None:
    with Netlink() as netlink:
        netlink.delete_link(GATE)  # of a container that ended; its namespace may linger
        netlink.add_veth(End(GATE, _MAC[GATE]), End(INNER, _MAC[INNER], inner_netns), mtu)
        index = socket.if_nametoindex(GATE)
        _address(netlink, index, GATE4, GATE6 if ipv6 else "")
        _know(netlink, index, _MAC[INNER], INNER4, INNER6 if ipv6 else "")


def _set_up_inner(*, ipv6: bool, leads_out: bool) -> None:
    """``leads_out``: without an IPv6 Internet behind it there is no default route, so nobody waits for it."""
    with Netlink() as netlink:
        netlink.set_up(socket.if_nametoindex("lo"))
        index = socket.if_nametoindex(INNER)
        _address(netlink, index, INNER4, INNER6 if ipv6 else "")
        _know(netlink, index, _MAC[GATE], GATE4, GATE6 if ipv6 else "")
        netlink.add_default_route(index, ip_address(GATE4))
        if ipv6 and leads_out:
            netlink.add_default_route(index, ip_address(GATE6))


def _address(netlink: Netlink, index: int, ipv4: str, ipv6: str) -> None:
    netlink.add_address(index, ip_address(ipv4), NETWORK4.prefixlen)
    if ipv6:
        netlink.add_address(index, ip_address(ipv6), NETWORK6.prefixlen)
    netlink.set_up(index)


def _know(netlink: Netlink, index: int, mac: str, ipv4: str, ipv6: str) -> None:
    """Know the neighbour at the other end for good.

    Its entry is found even while some other sprite floods the table of neighbours, of which a host has one.
    """
    netlink.add_neighbour(index, ip_address(ipv4), mac)
    if ipv6:
        netlink.add_neighbour(index, ip_address(ipv6), mac)


def _has_ipv6() -> bool:
    return (_SYSCTL / "ipv6/conf/all/forwarding").exists()
