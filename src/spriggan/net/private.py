"""Where a sprite must never get: the addresses that are not of the public Internet.

The pilot's router holds the same list and turns packets away first, with an answer; the
host's rules hold it again because the router runs beside the sprite. A test keeps them equal.
Documentation networks (TEST-NET) are left alone: they lead nowhere, or are somebody's lab.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

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
    IPv6Network("::/96"),  # unspecified, loopback, IPv4-compatible
    IPv6Network("::ffff:0:0/96"),
    # NAT64 is how networks without IPv4 reach public IPv4 addresses; private ones stay private.
    *(
        IPv6Network(
            (int(IPv6Network("64:ff9b::/96").network_address) + int(net.network_address), 96 + net.prefixlen)
        )
        for net in PRIVATE4
    ),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2002::/16"),  # 6to4 carries IPv4 addresses
    IPv6Network("fc00::/7"),
    IPv6Network("fe80::/10"),
    IPv6Network("fec0::/10"),
    IPv6Network("ff00::/8"),
)
