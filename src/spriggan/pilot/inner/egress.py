"""Where a sprite may go: its network policy, kept by the resolver and the router's rules together.

A name that the policy denies is refused by the resolver; an address is let through only while it is
the answer to a name that was allowed. So addresses that were never looked up here are blocked.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from ipaddress import IPv4Address, IPv6Address

from spriggan.linux import netlink
from spriggan.pilot.inner import dns
from spriggan.wire.policy import NetworkPolicy

# Programs keep addresses longer than they should, and may connect again with them.
SHORTEST_S, LONGEST_S = 300, 86400

_LETTING = """\
add rule inet router egress ct state established,related accept
add rule inet router egress ip daddr @allowed4 accept
add rule inet router egress ip6 daddr @allowed6 accept
add rule inet router egress reject with icmpx type admin-prohibited
"""


class Egress:
    """The policy in force in this network namespace, the router's: ``policy``, until ``apply``."""

    def __init__(self, policy: NetworkPolicy) -> None:
        self.policy = policy
        self._until: dict[IPv4Address | IPv6Address, float] = {}  # by the monotonic clock
        self._changing = asyncio.Lock()

    async def apply(self, policy: NetworkPolicy) -> None:
        """Put ``policy`` in force, for connections that exist, too. Raises ``OSError``."""
        async with self._changing:
            self.policy = policy  # names first: what is denied now is not let through meanwhile
            self._until.clear()
            script = "flush chain inet router egress\n"
            script += "flush set inet router allowed4\nflush set inet router allowed6\n"
            await asyncio.to_thread(_nft, script + ("" if policy.unrestricted else _LETTING))
            # From here on every packet is looked at as the first of its connection.
            await asyncio.to_thread(netlink.forget_connections)

    def allows(self, name: bytes) -> bool:
        """Whether ``name`` (in labels) may be asked for."""
        return self.policy.allows(dns.text(name))

    async def admit(self, answer: bytes) -> None:
        """Let the sprite reach the addresses in the ``answer`` to a name that is allowed.

        Raises ``OSError`` or ``dns.Malformed``; the sprite must not get the answer then.
        """
        if self.policy.unrestricted:
            return
        now = time.monotonic()
        wanted = {
            address: now + min(max(ttl, SHORTEST_S), LONGEST_S) for address, ttl in dns.addresses(answer)
        }
        if not wanted:
            return
        async with self._changing:
            new = {a: until for a, until in wanted.items() if self._until.get(a, 0) < until - SHORTEST_S / 2}
            if new:
                script = "".join(_element(address, until - now) for address, until in new.items())
                await asyncio.to_thread(_nft, script)
                self._until = {a: t for a, t in self._until.items() if t > now} | new


def _element(address: IPv4Address | IPv6Address, seconds: float) -> str:
    # Adding alone would leave an element that is there with the time it had.
    where = f"element inet router allowed{address.version}"
    timed = f"{{ {address} timeout {int(seconds)}s }}"
    return f"add {where} {timed}\ndelete {where} {{ {address} }}\nadd {where} {timed}\n"


def _nft(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"nft refused the policy: {done.stderr.strip()}")
