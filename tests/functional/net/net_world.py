"""A host and an Internet of their own, made of network namespaces, and sprites on that host.

Nothing here touches the network of the machine that runs the tests.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from spriggan.linux import namespaces
from spriggan.net import addresses
from spriggan.net.host import HostRules
from spriggan.net.uplinks import Uplinks
from spriggan.pilot.inner import router
from spriggan.wire.spec import Uplink

MTU = 1400
HOST4, HOST6 = "198.51.100.2", "2001:db8::2"
FAR4, FAR6 = "198.51.100.1", "2001:db8::1"  # public, as far as the rules know
PRIVATE = "192.168.7.1"  # also an address of the far side
PORT = 8000


@dataclass
class Sprite:
    """A router namespace and an inner network in a user namespace."""

    slot: int
    uplink: Uplink
    router: int
    user: int
    inner: int

    def run(self, work: Callable[[], Any]) -> Any:
        """Run ``work`` in a child that joined the sprite's user and network namespaces."""

        def enter() -> None:
            namespaces.setns(self.user, namespaces.CLONE_NEWUSER)
            namespaces.setns(self.inner, namespaces.CLONE_NEWNET)

        return in_child(enter, work)

    def run_in_router(self, work: Callable[[], Any]) -> Any:
        return in_child(lambda: namespaces.setns(self.router, namespaces.CLONE_NEWNET), work)


@dataclass
class World:
    """A host with its instance of Spriggan, connected to a far side."""

    instance: str
    host: int
    far: int
    runtime: Path

    @property
    def rules(self) -> HostRules:
        return HostRules(self.instance, runtime=self.runtime)

    def on_host(self, work: Callable[[], Any]) -> Any:
        return namespaces.in_network(self.host, work)

    @contextmanager
    def sprite(self, slot: int) -> Iterator[Sprite]:
        with ExitStack() as undo:
            netns, uplink = self.on_host(lambda: Uplinks(self.instance).create(slot))
            undo.callback(os.close, netns)
            with namespaces.user_namespace(addresses.first_id(slot), namespaces.CLONE_NEWNET) as pid:
                user = namespaces.open_namespace(pid, "user")
                undo.callback(os.close, user)
                inner = namespaces.open_namespace(pid, "net")
                undo.callback(os.close, inner)
            namespaces.in_network(netns, lambda: router.configure(uplink, inner))
            yield Sprite(slot, uplink, netns, user, inner)


def connect(far: int) -> None:
    """Make this namespace a host whose eth0 leads to ``far``."""
    # A new namespace takes this from the machine, on which an instance may be running.
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    with IPRoute() as ipr:
        ipr.link("add", ifname="eth0", kind="veth", mtu=MTU, peer={"ifname": "eth0", "net_ns_fd": far})
        give(ipr, [(HOST4, 24), ("192.168.7.2", 24), (HOST6, 64)])
        ipr.route("add", dst="0.0.0.0/0", gateway=FAR4)
        ipr.route("add", dst="::/0", gateway=FAR6)

    def far_side() -> None:
        with IPRoute() as ipr:
            # Replies can only reach the host itself: what arrives must have been translated.
            give(ipr, [(FAR4, 24), (PRIVATE, 24), (FAR6, 64)])

    namespaces.in_network(far, far_side)


def give(ipr: IPRoute, own: list[tuple[str, int]]) -> None:
    ipr.link("set", index=socket.if_nametoindex("lo"), state="up")
    index = socket.if_nametoindex("eth0")
    for address, length in own:
        ipr.addr("add", index=index, address=address, prefixlen=length, flags=2 if ":" in address else 0)
    ipr.link("set", index=index, state="up")


@contextmanager
def serving(netns: int, listen: list[str]) -> Iterator[None]:
    """Tell every TCP client on port 8000, and whoever sends a datagram, what address it comes from."""

    def open_all() -> list[socket.socket]:
        opened = []
        for address in listen:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sock = socket.socket(family, kind)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind((address, PORT))
                if kind == socket.SOCK_STREAM:
                    sock.listen()
                opened.append(sock)
        return opened

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not closing.is_set():
                if sock.type == socket.SOCK_DGRAM:
                    _, peer = sock.recvfrom(100)
                    if peer:  # None when the socket is shut down
                        sock.sendto(peer[0].encode(), peer)
                else:
                    connection, peer = sock.accept()
                    with connection:
                        connection.sendall(peer[0].encode())

    closing = threading.Event()
    sockets = namespaces.in_network(netns, open_all)
    for sock in sockets:
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
    try:
        yield
    finally:
        closing.set()
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def in_child(enter: Callable[[], None], work: Callable[[], Any]) -> Any:
    """Run ``work`` in a child after ``enter``; return its result or raise its error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter()
            try:
                outcome = (True, work())
            except Exception as error:
                outcome = (False, error)
            with os.fdopen(writer, "wb") as file:
                pickle.dump(outcome, file)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        data = file.read()
    os.waitpid(pid, 0)
    good, result = pickle.loads(data)
    if not good:
        raise result
    return result


def ask(address: str, *, udp: bool = False, timeout: float = 0.3) -> str:
    """What the server at ``address`` says; raises ``OSError`` if it cannot be reached."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect((address, PORT))
        if udp:
            sock.sendall(b"hello")
        return sock.recv(100).decode()


def reach(address: str, *, udp: bool = False) -> str:
    """The same for what must be reached, with the patience that a busy machine needs."""
    return ask(address, udp=udp, timeout=10)


def ping(address: str) -> bool:
    """Whether ``address`` answers an echo request."""
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, protocol) as sock:
        sock.settimeout(0.3)
        body = bytes([128 if v6 else 8, 0, 0, 0, 0, 1, 0, 1])
        if not v6:
            total = sum(int.from_bytes(body[i : i + 2]) for i in range(0, len(body), 2))
            body = body[:2] + (~total & 0xFFFF).to_bytes(2) + body[4:]
        try:
            sock.sendto(body, (address, 0))
            while True:
                answer, peer = sock.recvfrom(100)
                kind = answer[0] if v6 else answer[20]
                if peer[0] == address and kind == (129 if v6 else 0):
                    return True
        except OSError:
            return False


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
