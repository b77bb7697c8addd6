"""The host's rules: a sprite reaches the Internet, and neither the host nor anything near it.

They stand in a table of their own, so that nobody else's rules are touched. Whether a
packet comes from a sprite is told by the interface it arrives on, not by its addresses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from spriggan.errors import Broken
from spriggan.net import addresses, blockers, forwarding, nft
from spriggan.net.claims import RUNTIME
from spriggan.net.private import PRIVATE4, PRIVATE6

_TABLES = "spriggan_"  # what the tables of all instances start with


class HostRules:
    """The table of one instance, and forwarding for as long as any instance has one."""

    def __init__(self, instance: str, *, runtime: Path = RUNTIME) -> None:
        self._instance = instance
        self._runtime = runtime

    @property
    def table(self) -> str:
        """The name of the table, in family inet."""
        return f"{_TABLES}{self._instance}"

    def install(self) -> None:
        """Set the rules, in one step, then switch forwarding on. Idempotent."""
        with forwarding.locked(self._runtime):
            nft.apply(rules(self.table, self._instance))
            forwarding.switch_on(self._runtime)

    def remove(self) -> None:
        """Take the rules away; the last instance to do so puts forwarding back. Idempotent."""
        with forwarding.locked(self._runtime):
            nft.apply(f"table inet {self.table}\ndelete table inet {self.table}\n")
            if not any(family == "inet" and name.startswith(_TABLES) for family, name in nft.tables()):
                forwarding.put_back(self._runtime)

    def present(self) -> bool:
        """Whether the rules stand. Others may flush them (``systemctl restart nftables`` does)."""
        return ("inet", self.table) in nft.tables()

    def forward_blockers(self) -> list[blockers.Blocker]:
        """Who else on this host drops what sprites send, and how to make them let it through."""
        found = blockers.find(nft.listing("ruleset"), addresses.interface_prefix(self._instance))
        with contextlib.suppress(Broken):  # an iptables that cannot list has no rules either
            found += blockers.find_legacy(addresses.interface_prefix(self._instance))
        return found


def rules(table: str, instance: str) -> str:
    """The script that replaces the table, whatever it held before."""
    ours = f'"{addresses.interface_prefix(instance)}*"'
    return f"""\
table inet {table}
delete table inet {table}
table inet {table} {{
    set private4 {{
        type ipv4_addr
        flags interval
        elements = {{ {_elements(PRIVATE4)} }}
    }}

    set private6 {{
        type ipv6_addr
        flags interval
        elements = {{ {_elements(PRIVATE6)} }}
    }}

    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname {ours} drop
    }}

    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        iifname {ours} jump from_sprite
        oifname {ours} ct state established,related accept
        oifname {ours} drop
    }}

    chain from_sprite {{
        oifname {ours} drop
        ip saddr != {addresses.LINK_LOCAL} drop
        ip6 saddr != {addresses.network6(instance)} drop
        ip daddr @private4 drop
        ip6 daddr @private6 drop
    }}

    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        iifname {ours} masquerade
    }}
}}
"""


def _elements(networks: Iterable[IPv4Network | IPv6Network]) -> str:
    return ", ".join(str(network) for network in networks)
