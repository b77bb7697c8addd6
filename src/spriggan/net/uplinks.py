"""Uplinks: the veth pairs between the host and the sprites' router namespaces."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from spriggan.errors import Broken
from spriggan.linux import namespaces
from spriggan.net import addresses
from spriggan.wire.spec import Uplink

INTERFACE = "uplink0"  # the router's end

_RTM_F_FIB_MATCH = 0x2000
_RTN_UNICAST = 1
_IFA_F_NODAD = 0x02
_DEFAULT_MTU = 1500
_IPV6_MIN_MTU = 1280
# Never contacted: only looked up in the routing table, to find the default route.
_SOMEWHERE4, _SOMEWHERE6 = "1.1.1.1", "2606:4700:4700::1111"
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
            try:
                uplink = self._connect(slot, netns)
            except (NetlinkError, OSError) as error:
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
        with IPRoute() as ipr:
            _delete(ipr, addresses.host_interface(self._instance, slot))

    def _connect(self, slot: int, netns: int) -> Uplink:
        here = addresses.host_end(self._instance, slot)
        there = addresses.router_end(self._instance, slot)
        name = addresses.host_interface(self._instance, slot)
        with IPRoute() as ipr:
            mtu = _default_mtu(ipr)
            ipv6 = mtu >= _IPV6_MIN_MTU and host_has_ipv6(ipr)
            _delete(ipr, name)  # of a sprite whose namespace the kernel is still taking down
            ipr.link(
                "add",
                ifname=name,
                kind="veth",
                address=here.mac,
                mtu=mtu,
                peer={"ifname": INTERFACE, "net_ns_fd": netns, "address": there.mac, "mtu": mtu},
            )
            try:
                _set_up(ipr, name, here, there, ipv6=ipv6)
                namespaces.in_network(netns, lambda: _set_up_router(here, there, ipv6=ipv6))
            except BaseException:
                _delete(ipr, name)
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
    with IPRoute() as ipr:
        return all(_is_unused(ipr, str(address)) for address in pair)


def _is_unused(ipr: IPRoute, address: str) -> bool:
    try:
        (route,) = ipr.route("get", dst=address, flags=_RTM_F_FIB_MATCH)
    except NetlinkError as error:
        if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return True
        raise
    return bool(route["type"] == _RTN_UNICAST and route["dst_len"] <= addresses.LINK_LOCAL.prefixlen)


def _set_up(ipr: IPRoute, name: str, own: addresses.LinkEnd, other: addresses.LinkEnd, *, ipv6: bool) -> int:
    """Bring up one end; return its index.

    Neighbours are permanent on both sides: the host drops everything that comes from an
    uplink for itself, neighbour discovery included.
    """
    index = socket.if_nametoindex(name)
    ipr.addr("add", index=index, address=str(own.ipv4), prefixlen=31)
    if ipv6:
        # No link-local address: nobody needs it, and it costs router solicitations.
        (_SYSCTL / f"ipv6/conf/{name}/addr_gen_mode").write_text("1")
        (_SYSCTL / f"ipv6/conf/{name}/accept_ra").write_text("0")
        ipr.addr("add", index=index, address=str(own.ipv6), prefixlen=127, flags=_IFA_F_NODAD)
    ipr.link("set", index=index, state="up")
    ipr.neigh("replace", index=index, dst=str(other.ipv4), lladdr=other.mac, state="permanent")
    if ipv6:
        ipr.neigh("replace", index=index, dst=str(other.ipv6), lladdr=other.mac, state="permanent")
    return index


def _set_up_router(here: addresses.LinkEnd, there: addresses.LinkEnd, *, ipv6: bool) -> None:
    with IPRoute() as ipr:
        ipr.link("set", index=socket.if_nametoindex("lo"), state="up")
        index = _set_up(ipr, INTERFACE, there, here, ipv6=ipv6)
        ipr.route("add", dst="0.0.0.0/0", gateway=str(here.ipv4), oif=index)
        if ipv6:
            ipr.route("add", dst="::/0", gateway=str(here.ipv6), oif=index)


def _delete(ipr: IPRoute, name: str) -> None:
    """Delete a link; one that is gone already, or goes at this moment, is as good."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return
    try:
        ipr.link("del", index=index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def _default_mtu(ipr: IPRoute) -> int:
    """The MTU of the default route's device: packets bigger than that would not get far."""
    for address in (_SOMEWHERE4, _SOMEWHERE6):
        try:
            (route,) = ipr.route("get", dst=address)
            (link,) = ipr.link("get", index=route.get("oif"))
        except (NetlinkError, OSError):
            continue
        return min(int(link.get("mtu")), 65535)
    return _DEFAULT_MTU


def host_has_ipv6(ipr: IPRoute) -> bool:
    """Whether the host itself would speak IPv6 with the Internet: from a global address of its own.

    A host with none (or only local ones) prefers IPv4, but a sprite on it would prefer
    IPv6, and wait in vain. The administrator may also have switched IPv6 off for new links.
    """
    try:
        if (_SYSCTL / "ipv6/conf/default/disable_ipv6").read_text().strip() != "0":
            return False
        (route,) = ipr.route("get", dst=_SOMEWHERE6)
    except (NetlinkError, OSError):
        return False
    source = route.get("prefsrc")
    return source is not None and IPv6Address(source) in _GLOBAL6
