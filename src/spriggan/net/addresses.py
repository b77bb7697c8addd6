"""What follows from a slot: a sprite's range of ids, its uplink's names and addresses.

Arithmetic only. A slot is unique on the host, so everything derived from it is, too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

BLOCK = 1024  # slots that an instance claims at once
BLOCKS = 31  # 31 * 1024 pairs fit between 169.254.1.0 and 169.254.254.255 (RFC 3927)

LINK_LOCAL = IPv4Network("169.254.0.0/16")
ID_COUNT = 65536
FIRST_ID = 0x10000000

_FIRST_PAIR = IPv4Address("169.254.1.0")
# Clouds answer here for metadata, credentials, time and DNS; a /31 would take it from the host.
_CLOUD = (IPv4Network("169.254.169.0/24"), IPv4Network("169.254.170.0/24"))


@dataclass(frozen=True)
class LinkEnd:
    """One end of an uplink."""

    ipv4: IPv4Address
    ipv6: IPv6Address
    mac: str


def first_id(slot: int) -> int:
    """The host's uid and gid that are 0 in the sprite of ``slot``."""
    return FIRST_ID + slot * ID_COUNT


def interface_prefix(instance: str) -> str:
    """What the names of all host interfaces of ``instance`` start with."""
    return f"sg{instance[:4]}-"


def host_interface(instance: str, slot: int) -> str:
    """The host's end of the uplink of ``slot``."""
    return f"{interface_prefix(instance)}{slot}"


def slot_of(instance: str, interface: str) -> int | None:
    """The slot that ``interface`` belongs to; None if it is not one of this instance's uplinks."""
    digits = interface.removeprefix(interface_prefix(instance))
    if digits == interface or not (digits.isascii() and digits.isdecimal()):
        return None
    slot = int(digits)
    return slot if slot < BLOCK * BLOCKS and str(slot) == digits else None


def network6(instance: str) -> IPv6Network:
    """The unique local network (RFC 4193) of all uplinks of ``instance``."""
    global_id = hashlib.sha256(f"spriggan uplinks of {instance}".encode()).digest()[:5]
    return IPv6Network((b"\xfd" + global_id + bytes(10), 64))


def host_end(instance: str, slot: int) -> LinkEnd:
    """The end in the host's namespace: the gateway."""
    return _end(instance, slot, 0)


def router_end(instance: str, slot: int) -> LinkEnd:
    """The end in the sprite's router namespace."""
    return _end(instance, slot, 1)


def _end(instance: str, slot: int, side: int) -> LinkEnd:
    if not 0 <= slot < BLOCK * BLOCKS:
        raise ValueError(f"slot {slot} is outside 0…{BLOCK * BLOCKS - 1}")
    return LinkEnd(
        ipv4=_FIRST_PAIR + 2 * slot + side,
        ipv6=network6(instance)[2 * slot + side],
        # Locally administered. Given, not random: then udev leaves it alone, and the other
        # end's permanent neighbour entry stays true.
        mac=f"02:73:67:{side:02x}:{slot >> 8:02x}:{slot & 0xFF:02x}",
    )


def is_reserved(slot: int) -> bool:
    """Whether clouds use the link-local pair of ``slot`` themselves."""
    address = _FIRST_PAIR + 2 * slot
    return any(address in network for network in _CLOUD)
