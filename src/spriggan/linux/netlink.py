"""Links, addresses, neighbours and routes by rtnetlink(7), and connections: the few requests that are needed here.

Not by pyroute2, which is what one takes otherwise: it runs an event loop of its own for every request,
and a pilot would have touched, and so have copied, 5 MiB of the zygote's memory after its first one.
Constants keep the names of include/uapi/linux: netlink.h, rtnetlink.h, if_link.h, if_addr.h, neighbour.h, veth.h,
netfilter/nfnetlink.h, netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Self

Address = IPv4Address | IPv6Address

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR = 2

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR = 20
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWNEIGH = 28

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFF_UP = 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT = 0x80
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC = 1, 4, 5, 7
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST = 254, 3, 0, 1
RTM_F_FIB_MATCH = 0x2000

NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE = 1, 2

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # rtattr: length, type
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, index, state, flags, type
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, dst and src length, tos, table, protocol, scope, type, flags
_NETFILTER = struct.Struct("=BBH")  # nfgenmsg: family, version, resource
_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class End:
    """One end of a veth pair to be made; ``netns`` is a descriptor, or None for the caller's namespace."""

    name: str
    mac: str
    netns: int | None = None


@dataclass(frozen=True)
class Route:
    """What the kernel says about the way to an address."""

    kind: int  # RTN_…
    prefix_length: int  # of the route that matched
    interface: int  # index, 0 for none
    source: Address | None


class Connection:
    """A connection to a part of the kernel, in the network namespace of the thread that made it."""

    def __init__(self, part: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, part)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes, what: str) -> bytes:
        """Send one request; return the body of the answer, which is empty for an acknowledgement."""
        self._sequence += 1
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, NLM_F_REQUEST | flags, self._sequence, 0) + body)
        while True:
            answer = self._socket.recv(_ANSWER_BYTES)
            length, answered, _, sequence, _ = _HEADER.unpack_from(answer)
            if sequence != self._sequence:
                continue
            if answered != NLMSG_ERROR:
                return answer[_HEADER.size : length]
            number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if number:
                raise OSError(number, f"{what}: {os.strerror(number)}")
            return b""


class Netlink(Connection):
    """Every method raises ``OSError`` with the kernel's errno and what was tried."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def add_veth(self, one: End, other: End, mtu: int) -> None:
        """Make a pair; both ends are down."""
        peer = _LINK.pack(0, 0, 0, 0, 0) + _end(other, mtu)
        info = _attribute(IFLA_INFO_KIND, b"veth") + _attribute(
            IFLA_INFO_DATA, _attribute(VETH_INFO_PEER, peer)
        )
        body = _LINK.pack(0, 0, 0, 0, 0) + _end(one, mtu) + _attribute(IFLA_LINKINFO, info)
        self._change(RTM_NEWLINK, body, f"make the links {one.name} and {other.name}", new=True)

    def delete_link(self, name: str) -> bool:
        """Delete a link; False if there is none of that name."""
        body = _LINK.pack(0, 0, 0, 0, 0) + _attribute(IFLA_IFNAME, name.encode() + b"\0")
        try:
            self._change(RTM_DELLINK, body, f"delete the link {name}")
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def set_up(self, index: int) -> None:
        self._change(RTM_NEWLINK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP), f"bring up link {index}")

    def mtu(self, index: int) -> int:
        """Of the link with that index."""
        what = f"read link {index}"
        body = _attributes(self.request(RTM_GETLINK, 0, _LINK.pack(0, 0, index, 0, 0), what)[_LINK.size :])
        return int(struct.unpack("=I", body[IFLA_MTU])[0])

    def add_address(self, index: int, address: Address, prefix_length: int) -> None:
        """An IPv6 address is ready at once: nobody else is on these links, and one that is still being
        looked for cannot be bound.
        """
        flags = IFA_F_NODAD if address.version == 6 else 0
        body = _IFADDR.pack(_family(address), prefix_length, flags, RT_SCOPE_UNIVERSE, index)
        for kind in (IFA_LOCAL, IFA_ADDRESS):
            body += _attribute(kind, address.packed)
        self._change(RTM_NEWADDR, body, f"add {address} to link {index}", new=True)

    def add_neighbour(self, index: int, address: Address, mac: str) -> None:
        """A permanent one, in place of any other."""
        body = _NEIGHBOUR.pack(_family(address), index, NUD_PERMANENT, 0, 0)
        body += _attribute(NDA_DST, address.packed) + _attribute(NDA_LLADDR, _mac(mac))
        what = f"add the neighbour {address} to link {index}"
        self.request(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, body, what)

    def add_default_route(self, index: int, gateway: Address) -> None:
        body = _ROUTE.pack(
            _family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0
        )
        body += _attribute(RTA_GATEWAY, gateway.packed) + _attribute(RTA_OIF, struct.pack("=i", index))
        self._change(RTM_NEWROUTE, body, f"add the default route by {gateway}", new=True)

    def route_to(self, address: Address, *, of_table: bool = False) -> Route | None:
        """How the kernel would reach ``address``; None if it could not.

        ``of_table``: as the route is in the table, not as it applies to this address.
        """
        flags = RTM_F_FIB_MATCH if of_table else 0
        body = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, flags)
        body += _attribute(RTA_DST, address.packed)
        try:
            answer = self.request(RTM_GETROUTE, 0, body, f"look up the route to {address}")
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return None
            raise
        fields = _ROUTE.unpack_from(answer)
        found = _attributes(answer[_ROUTE.size :])
        return Route(
            kind=fields[7],
            prefix_length=fields[1],
            interface=struct.unpack("=i", found[RTA_OIF])[0] if RTA_OIF in found else 0,
            source=ip_address(found[RTA_PREFSRC]) if RTA_PREFSRC in found else None,
        )

    def _change(self, kind: int, body: bytes, what: str, *, new: bool = False) -> None:
        self.request(kind, NLM_F_ACK | (NLM_F_CREATE | NLM_F_EXCL if new else 0), body, what)


def forget_connections() -> None:
    """Let the kernel take every packet of this network namespace for the first one of its connection."""
    kind = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE
    with Connection(NETLINK_NETFILTER) as connection:
        connection.request(kind, NLM_F_ACK, _NETFILTER.pack(0, 0, 0), "forget the connections")


def _end(end: End, mtu: int) -> bytes:
    attributes = _attribute(IFLA_IFNAME, end.name.encode() + b"\0") + _attribute(IFLA_ADDRESS, _mac(end.mac))
    attributes += _attribute(IFLA_MTU, struct.pack("=I", mtu))
    if end.netns is not None:
        attributes += _attribute(IFLA_NET_NS_FD, struct.pack("=I", end.netns))
    return attributes


def _family(address: Address) -> int:
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(padding)


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
    return found
