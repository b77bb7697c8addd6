"""What the other end of a TCP connection has not read yet, asked of the kernel by netlink (sock_diag(7)).

The kernel knows it of a connection whose other end is in the same network namespace. What was
sent to another machine is acknowledged by its kernel, whoever reads it when.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from spriggan.linux.listeners import NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
from spriggan.linux.netlink import Connection

# include/uapi/linux/inet_diag.h: inet_diag_req_v2 and inet_diag_msg, whose addresses and ports are
# in network order, and whose cookie of all ones asks for whatever socket has them.
_REQUEST = struct.Struct("=BBBxI2s2s16s16sIQ")
_MESSAGE = struct.Struct("=4x2s2s16x16x4x8x4xI")
_ANY_SOCKET = (1 << 64) - 1

Address = tuple[str, int]


class Reader:
    """The process at the other end of the connection from ``other`` to ``own``, seen from here at ``own``."""

    def __init__(self, own: Address, other: Address) -> None:
        """``own`` and ``other`` are host (an IPv4 or IPv6 address) and port. Raises ``ValueError``."""
        (family, host), (other_family, other_host) = _packed(own[0]), _packed(other[0])
        if family != other_family:
            raise ValueError(f"{own[0]} and {other[0]} are of different families")
        # The socket that is looked for is the other end's: its source is the other end.
        self._ports = other[1].to_bytes(2), own[1].to_bytes(2)
        self._request = _REQUEST.pack(
            family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF, *self._ports, other_host, host, 0, _ANY_SOCKET
        )

    def unread(self) -> int:
        """How many bytes it has been sent and has not read: 0 as well where that is not known."""
        try:
            with Connection(NETLINK_SOCK_DIAG) as connection:
                answer = connection.request(SOCK_DIAG_BY_FAMILY, 0, self._request, "sock_diag")
        except OSError:
            return 0  # elsewhere, or gone
        source, destination, count = _MESSAGE.unpack_from(answer)
        # A socket that listens at any address is found as well, and has no other end.
        return int(count) if (source, destination) == self._ports else 0


def _packed(host: str) -> tuple[socket.AddressFamily, bytes]:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, address.packed.ljust(16, b"\0")
