"""What a client on this machine has not read, as the kernel counts it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spriggan.linux.unread import Reader


@contextmanager
def connection(
    family: socket.AddressFamily, bound: str, host: str
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection to ``host``: the one that accepted it, and the one that asked for it."""
    with socket.socket(family) as listener:
        listener.bind((bound, 0))
        listener.listen()
        with socket.create_connection((host, listener.getsockname()[1])) as client:
            accepted, _ = listener.accept()
            with accepted:
                yield accepted, client


@pytest.mark.parametrize(
    ("family", "bound", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["v4", "v6", "v4-by-v6"],
)
def test_bytes_are_counted_until_they_are_read(family: socket.AddressFamily, bound: str, host: str) -> None:
    with connection(family, bound, host) as (own, client):
        reader = Reader(own.getsockname()[:2], own.getpeername()[:2])
        assert reader.unread() == 0
        own.sendall(b"0123456789")
        deadline = time.monotonic() + 10
        while reader.unread() != 10:
            assert time.monotonic() < deadline, reader.unread()
        client.recv(4)
        assert reader.unread() == 6
        client.recv(6)
        assert reader.unread() == 0
        client.sendall(b"the other way")
        assert reader.unread() == 0


def test_who_is_elsewhere_or_gone_has_nothing_to_read() -> None:
    with connection(socket.AF_INET, "127.0.0.1", "127.0.0.1") as (own, client):
        own.sendall(b"x")
        name, peer = own.getsockname(), own.getpeername()
        assert Reader(name, ("192.0.2.1", peer[1])).unread() == 0
        client.close()
        own.close()
        assert Reader(name, peer).unread() == 0


def test_a_socket_that_listens_is_no_reader() -> None:
    """A lookup of an address elsewhere finds what listens here at any address with that port."""
    with socket.socket() as listener, socket.socket() as waiting:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        waiting.connect(("127.0.0.1", port))  # not accepted: the listener has one to take
        assert Reader(("127.0.0.1", 1), ("192.0.2.1", port)).unread() == 0


@pytest.mark.parametrize(
    ("own", "other"),
    [(("::1", 1), ("127.0.0.1", 2)), (("localhost", 1), ("127.0.0.1", 2)), (("", 1), ("127.0.0.1", 2))],
)
def test_what_is_no_connection_is_refused(own: tuple[str, int], other: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"families|address"):
        Reader(own, other)
