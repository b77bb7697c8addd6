"""Listening TCP sockets of a network namespace, asked of the kernel by netlink (sock_diag(7)).

Reading ``/proc/net/tcp`` would walk the hash table of all connections of the machine.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
TCP_LISTEN = 10
TIMEOUT_S = 2.0

# include/uapi/linux/netlink.h and inet_diag.h: nlmsghdr, inet_diag_req_v2, inet_diag_msg.
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48x")
_MESSAGE = struct.Struct("=4B2s2s16s16s12xIIIII")


@dataclass(frozen=True)
class Listener:
    """One listening socket; ``address`` is what it is bound to."""

    port: int
    address: str
    inode: int


def open_query() -> socket.socket:
    """A socket to ask about the network namespace that this is called in."""
    asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    asked.settimeout(TIMEOUT_S)
    return asked


def listening(query: socket.socket) -> list[Listener]:
    """What listens in the namespace of ``query``, IPv4 before IPv6. Raises ``OSError``."""
    return [found for family in (socket.AF_INET, socket.AF_INET6) for found in _dump(query, family)]


def owner(inode: int, netns: int) -> int | None:
    """The first process that holds socket ``inode``, of those in the network namespace ``netns`` (a descriptor)."""
    wanted, namespace = Path(f"socket:[{inode}]"), os.fstat(netns)
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            if not os.path.samestat((entry / "ns/net").stat(), namespace):
                continue
            if any(fd.readlink() == wanted for fd in (entry / "fd").iterdir()):
                return int(entry.name)
        except OSError:
            continue  # gone, or not to be looked at
    return None


def _dump(query: socket.socket, family: int) -> Iterator[Listener]:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 1 << TCP_LISTEN)
    length = _HEADER.size + len(request)
    query.send(_HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0) + request)
    while True:
        data = query.recv(1 << 16)
        position = 0
        while position + _HEADER.size <= len(data):
            size, kind, _, _, _ = _HEADER.unpack_from(data, position)
            body = data[position + _HEADER.size : position + size]
            position += (size + 3) & ~3
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                number = -struct.unpack_from("=i", body)[0]
                if number == errno.ENOENT and family == socket.AF_INET6:
                    return  # a kernel without IPv6
                raise OSError(number, f"sock_diag: {os.strerror(number)}")
            yield _listener(body)


def _listener(body: bytes) -> Listener:
    fields = _MESSAGE.unpack_from(body)
    family, port, address, inode = fields[0], fields[4], fields[6], fields[-1]
    packed = address[:4] if family == socket.AF_INET else address
    return Listener(int.from_bytes(port), socket.inet_ntop(family, packed), inode)
