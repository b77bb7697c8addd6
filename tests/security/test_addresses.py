"""No address of the host or of another sprite is reached, whatever a sprite's root does to its own network."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

from attacks import attack_json, create, running, wait_for

import serving

# Sends the word to every target by every means: sockets, sockets from addresses and over routes of its own,
# and frames made by hand with all kinds of senders, to the gateway and to everybody.
REACH = """
import select
word, port, targets = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3:]
GATE, OWN = bytes.fromhex("027370720002"), bytes.fromhex("027370720001")
reached, sent = [], [0]
def by_sockets(source=None):
    waiting = {}
    for target in targets:
        family = socket.AF_INET6 if ":" in target else socket.AF_INET
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            sock = socket.socket(family, kind)
            sock.setblocking(False)
            try:
                if source and family == socket.AF_INET:
                    sock.bind((source, 0))
                place = (target, port, 0, socket.if_nametoindex("spr0")) if ":" in target else (target, port)
                if kind == socket.SOCK_DGRAM:
                    sock.sendto(word, place)
                    sock.close()
                else:
                    sock.connect_ex(place)
                    waiting[sock] = target
            except OSError:
                sock.close()
    end = time.monotonic() + 1
    while waiting and time.monotonic() < end:
        for sock in select.select([], list(waiting), [], 0.1)[1]:
            target = waiting.pop(sock)
            try:
                sock.getpeername()
                reached.append(target)
            except OSError:
                pass
            sock.close()
def ip(*words):
    subprocess.run(["ip", *words], capture_output=True, check=False)
def total(data):
    data += bytes(len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return ~value & 0xFFFF
def packet(source, target, payload, protocol, options=b""):
    if ":" in target:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
        return head + socket.inet_pton(10, source) + socket.inet_pton(10, target) + payload
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 1, 0, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    return head[:10] + struct.pack("!H", total(head)) + head[12:] + payload
def udp(to, body):
    return struct.pack("!4H", 40000, to, 8 + len(body), 0) + body
def by_frames(raw):
    for target in targets:
        family, kind = (10, 0x86DD) if ":" in target else (2, 0x800)
        own = "fdf::1" if family == 10 else "10.0.0.1"
        every = ["::1", "::", "fdf::2"] if family == 10 else ["127.0.0.1", "0.0.0.0", "255.255.255.255", "10.0.0.2"]
        alike = [other for other in targets if (":" in other) == (family == 10)]
        for source in [own, *every, *alike]:
            payload = udp(port, word)
            if family == 10:  # whose checksum is not left out
                pseudo = socket.inet_pton(10, source) + socket.inet_pton(10, target) + struct.pack("!II", len(payload), 17)
                payload = payload[:6] + struct.pack("!H", total(pseudo + payload) or 0xFFFF) + payload[8:]
            packets = [packet(source, target, payload, 17)]
            if family == 2:
                hop = bytes([131, 7, 4]) + socket.inet_aton(target) + bytes(1)  # loose source route
                packets.append(packet(source, "10.0.0.2", payload, 17, hop))
                packets.append(packet(source, "10.0.0.2", packets[0], 4))  # IP in IP
            for inner in packets:
                for to in (GATE, b"\\xff" * 6):
                    raw.send(to + OWN + struct.pack("!H", kind) + inner)
                    raw.send(to + OWN + struct.pack("!HHH", 0x8100, 1, kind) + inner)
                    sent[0] += 2
def answered(raw):
    '''Whether a frame made by hand is one that the gateway answers: a question for its resolver.'''
    question = struct.pack("!6H", 7, 256, 1, 0, 0, 0) + b"\\x07example\\x00" + struct.pack("!2H", 1, 1)
    raw.send(GATE + OWN + b"\\x08\\x00" + packet("10.0.0.1", "10.0.0.2", udp(53, question), 17))
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if select.select([raw], [], [], 0.2)[0]:
            frame = raw.recv(2048)
            if frame[12:14] == b"\\x08\\x00" and frame[23] == 17 and frame[34:36] == b"\\x00\\x35":
                return True
    return False
by_sockets()
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
    raw.bind(("spr0", 3))
    works = answered(raw)
    by_frames(raw)
ip("route", "add", "169.254.0.0/16", "dev", "spr0")
for target in targets:
    version = "-6" if ":" in target else "-4"
    ip(version, "route", "replace", target, "dev", "spr0")
    ip(version, "neigh", "replace", target, "lladdr", GATE.hex(":"), "dev", "spr0")
by_sockets()
for own in ("169.254.200.7", "192.168.77.7", "203.0.113.7"):
    ip("addr", "add", f"{own}/32", "dev", "spr0")
    by_sockets(own)
ip("link", "add", "second", "link", "spr0", "type", "macvlan")
ip("addr", "add", "10.0.0.77/24", "dev", "second")
ip("link", "set", "second", "up")
by_sockets("10.0.0.77")
print(json.dumps([works, sent[0], reached]))
"""
LISTEN = """
import threading
port = int(sys.argv[1])
def listen(family, kind):
    sock = socket.socket(family, kind)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.bind(("", port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    while True:
        print("got", sock.accept()[1] if kind == socket.SOCK_STREAM else sock.recvfrom(100), flush=True)
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        threading.Thread(target=listen, args=(family, kind), daemon=True).start()
time.sleep(0.5)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"own", ("127.0.0.1", port))
time.sleep(0.5)
full()
"""


def addresses_of_the_host() -> list[str]:
    """All there are, of every interface, and the sprites' ends of their links."""
    listed = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    found = []
    for link in listed:
        for entry in link.get("addr_info", []):
            address = ipaddress.ip_address(entry["local"])
            found.append(str(address))
            if entry["prefixlen"] in (31, 127):  # the other end of such a pair
                found.append(str(address + 1 if int(address) % 2 == 0 else address - 1))
    return list(dict.fromkeys(found))


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[bytes], list[Any]]]:
    """A port at which the host takes whatever comes: yields it, the datagrams and who connected."""
    datagrams: list[bytes] = []
    connections: list[Any] = []
    # Dual-stack sockets take both, IPv4 under its mapped form.
    stream = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = stream.getsockname()[1]
    datagram = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagram.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    datagram.bind(("::", port))

    def receive() -> None:
        with contextlib.suppress(OSError):
            while data := datagram.recv(100):
                datagrams.append(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = stream.accept()
                connections.append(peer)
                connection.close()

    threads = [threading.Thread(target=work, daemon=True) for work in (receive, accept)]
    for thread in threads:
        thread.start()
    try:
        yield port, datagrams, connections
    finally:
        for sock in (stream, datagram):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def test_no_address_is_reached_by_any_means(server: serving.Server, sprite: Any) -> None:
    other = create(server, "listens")
    word = secrets.token_hex(8)
    try:
        serving.run(sprite, "true")
        with listening() as (port, datagrams, connections):
            with running(server, other.name, LISTEN, str(port)) as listener:
                wait_for(lambda: listener.full is not None)
                # Those of the two sprites' links are among them, now that both run.
                targets = addresses_of_the_host()
                assert any(target.startswith("169.254.") for target in targets)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    for target in (target for target in targets if ":" not in target):
                        sock.sendto(b"from the host", (target, port))
                wait_for(lambda: b"from the host" in datagrams)
                answered, sent, reached = attack_json(sprite, REACH, word, str(port), *targets)
            assert answered, "frames made by hand do not even reach the gateway"
            assert sent > 100
            assert reached == []
            assert word.encode() not in b" ".join(datagrams)
            assert connections == []
        heard = [line for line in listener.words if line.startswith("got")]
        assert heard and not [line for line in heard if "own" not in line], heard
    finally:
        other.delete()
