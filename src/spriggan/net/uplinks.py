"""Uplinks: the veth pairs between the host and the sprites' router namespaces."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from pathlib import Path

from spriggan import faults
from spriggan.errors import Broken
from spriggan.linux import namespaces
from spriggan.linux.netlink import RTN_UNICAST, Address, End, Netlink
from spriggan.net import addresses
from spriggan.wire.spec import Uplink

INTERFACE = "uplink0"  # the router's end

_DEFAULT_MTU = 1500
_IPV6_MIN_MTU = 1280
# Never contacted: only looked up in the routing table, to find the default route.
_SOMEWHERE4, _SOMEWHERE6 = IPv4Address("1.1.1.1"), IPv6Address("2606:4700:4700::1111")
_GLOBAL6 = IPv6Network("2000::/3")
_SYSCTL = Path("/proc/sys/net")


class Uplinks:
    """The uplinks of one instance. All methods block; netlink answers within a millisecond each."""

    def __init__(self, instance: str) -> None:
        self._instance = instance

    def create(self, slot: int) -> tuple[int, Uplink]:
        """Make a router namespace with its uplink; the caller closes the descriptor.

        The namespace holds "uplink0" with its addresses, neighbour and default routes. It
        lives as long as someone holds the descriptor or runs in it; the pair dies with it.
        """
        with ExitStack() as undo:
            netns = namespaces.new_network()
            undo.callback(os.close, netns)
            faults.point("uplink:namespace")
            try:
                uplink = self._connect(slot, netns)
            except OSError as error:
                raise Broken(
                    f"the uplink of slot {slot} could not be made: {error}",
                    hint="does the kernel have veth? `modprobe veth`",
                ) from error
            undo.pop_all()
            return netns, uplink

    def list_links(self) -> list[int]:
        """The slots whose uplink exists on the host."""
        slots = (addresses.slot_of(self._instance, name) for _, name in socket.if_nameindex())
        return sorted(slot for slot in slots if slot is not None)

    def remove(self, slot: int) -> None:
        """Delete the uplink of ``slot``, whoever still runs in its router namespace. Idempotent."""
        with Netlink() as netlink:
            netlink.delete_link(addresses.host_interface(self._instance, slot))

    def _connect(self, slot: int, netns: int) -> Uplink:
        here = addresses.host_end(self._instance, slot)
        there = addresses.router_end(self._instance, slot)
        name = addresses.host_interface(self._instance, slot)
        with Netlink() as netlink:
            mtu = _default_mtu(netlink)
            ipv6 = mtu >= _IPV6_MIN_MTU and host_has_ipv6(netlink)
            netlink.delete_link(name)  # of a sprite whose namespace the kernel is still taking down
            netlink.add_veth(End(name, here.mac), End(INTERFACE, there.mac, netns), mtu)
            try:
                faults.point("uplink:pair")
                _set_up(netlink, name, here, there, ipv6=ipv6)
                faults.point("uplink:host")
                namespaces.in_network(netns, lambda: _set_up_router(here, there, ipv6=ipv6))
            except BaseException:
                netlink.delete_link(name)
                raise
        return Uplink(
            interface=INTERFACE,
            ipv4=f"{there.ipv4}/31",
            ipv4_gateway=str(here.ipv4),
            ipv6=f"{there.ipv6}/127" if ipv6 else "",
            ipv6_gateway=str(here.ipv6) if ipv6 else "",
            mtu=mtu,
        )


def pair_is_free(slot: int) -> bool:
    """Whether the host itself neither has nor specifically routes the addresses of ``slot``.

    For ``Claims(is_free=…)``. A route of all of 169.254.0.0/16 (zeroconf) is no obstacle.
    """
    # The IPv4 pair does not depend on the instance.
    pair = (addresses.host_end("", slot).ipv4, addresses.router_end("", slot).ipv4)
    with Netlink() as netlink:
        return all(_is_unused(netlink, address) for address in pair)


def _is_unused(netlink: Netlink, address: Address) -> bool:
    route = netlink.route_to(address, of_table=True)
    if route is None:
        return True
    return route.kind == RTN_UNICAST and route.prefix_length <= addresses.LINK_LOCAL.prefixlen


def _set_up(
    netlink: Netlink, name: str, own: addresses.LinkEnd, other: addresses.LinkEnd, *, ipv6: bool
) -> int:
    """Bring up one end; return its index.

    Neighbours are permanent on both sides: the host drops everything that comes from an
    uplink for itself, neighbour discovery included.
    """
    index = socket.if_nametoindex(name)
    netlink.add_address(index, own.ipv4, 31)
    if ipv6:
        # No link-local address: nobody needs it, and it costs router solicitations.
        (_SYSCTL / f"ipv6/conf/{name}/addr_gen_mode").write_text("1")
        (_SYSCTL / f"ipv6/conf/{name}/accept_ra").write_text("0")
        netlink.add_address(index, own.ipv6, 127)
    netlink.set_up(index)
    netlink.add_neighbour(index, other.ipv4, other.mac)
    if ipv6:
        netlink.add_neighbour(index, other.ipv6, other.mac)
    return index


def _set_up_router(here: addresses.LinkEnd, there: addresses.LinkEnd, *, ipv6: bool) -> None:
    with Netlink() as netlink:
        netlink.set_up(socket.if_nametoindex("lo"))
        index = _set_up(netlink, INTERFACE, there, here, ipv6=ipv6)
        netlink.add_default_route(index, here.ipv4)
        if ipv6:
            netlink.add_default_route(index, here.ipv6)


def _default_mtu(netlink: Netlink) -> int:
    """The MTU of the default route's device: packets bigger than that would not get far."""
    for address in (_SOMEWHERE4, _SOMEWHERE6):
        try:
            route = netlink.route_to(address)
            if route is not None:
                return min(netlink.mtu(route.interface), 65535)
        except OSError:
            continue
    return _DEFAULT_MTU


def host_has_ipv6(netlink: Netlink) -> bool:
    """Whether the host itself would speak IPv6 with the Internet: from a global address of its own.

    A host with none (or only local ones) prefers IPv4, but a sprite on it would prefer
    IPv6, and wait in vain. The administrator may also have switched IPv6 off for new links.
    """
    try:
        if (_SYSCTL / "ipv6/conf/default/disable_ipv6").read_text().strip() != "0":
            return False
        route = netlink.route_to(_SOMEWHERE6)
    except OSError:
        return False
    return route is not None and route.source is not None and route.source in _GLOBAL6
