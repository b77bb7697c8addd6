"""On the machine as it is: a sprite gets to the packages, and not to the machine."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest
from net_world import Sprite, World, ask, ping
from pyroute2 import IPRoute
from test_net_resolver import ask_udp, code_of, question, resolving

from spriggan.linux import namespaces
from spriggan.net import private
from spriggan.net.claims import RUNTIME, Claims
from spriggan.net.uplinks import Uplinks, pair_is_free
from spriggan.pilot.inner.resolver import RESOLV_CONF, upstreams_in

MIRROR = "deb.debian.org"


@pytest.fixture
def sprite(tmp_path: Path) -> Iterator[tuple[World, Sprite]]:
    instance = "t" + secrets.token_hex(4)[:7]
    (tmp_path / "instance.json").write_text(json.dumps({"id": instance}))
    with ExitStack() as undo:
        host = namespaces.open_namespace("self", "net")
        undo.callback(os.close, host)
        claims = Claims(instance, tmp_path, is_free=pair_is_free)
        claims.acquire()
        undo.callback(claims.release_all)
        world = World(instance, host, host, RUNTIME)
        world.rules.install()
        undo.callback(world.rules.remove)
        blockers = world.rules.forward_blockers()
        if blockers:
            pytest.skip(f"needs a host that forwards: {blockers[0].who}")
        slot = claims.take(Uplinks(instance).list_links())
        yield world, undo.enter_context(world.sprite(slot))


def test_packages_are_reached_by_name(sprite: tuple[World, Sprite]) -> None:
    world, box = sprite
    try:
        with urllib.request.urlopen(f"http://{MIRROR}/debian/dists/stable/Release", timeout=5) as answer:
            answer.read(100)
    except OSError as error:
        pytest.skip(f"needs {MIRROR}: {error}")
    with resolving(world, box, RESOLV_CONF):
        answer = box.run(lambda: ask_udp(question(MIRROR)))
        assert code_of(answer) == 0
        address = socket.inet_ntoa(answer[-4:])
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]
        command += ["--resolve", f"{MIRROR}:80:{address}", f"http://{MIRROR}/debian/dists/stable/Release"]
        assert (
            box.run(lambda: subprocess.run(command, capture_output=True, text=True, check=False).stdout)
            == "200"
        )


def test_no_address_of_this_machine_is_reached(sprite: tuple[World, Sprite]) -> None:
    _, box = sprite
    with IPRoute() as ipr:
        own = [ip_address(entry.get("address")) for entry in ipr.get_addr()]
    addresses = [str(a) for a in own if not a.is_loopback and not (a.version == 6 and a.is_link_local)]
    with ExitStack() as undo:
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            server = undo.enter_context(socket.socket(family))
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((anywhere, 8000))
            server.listen()
        for address in addresses:
            socket.create_connection((address, 8000), timeout=1).close()  # it does listen
            for run in (box.run, box.run_in_router):
                with pytest.raises(OSError):
                    run(lambda address=address: ask(address))
                assert not run(lambda address=address: ping(address))


def test_the_machines_resolver_is_reached_only_through_ours(sprite: tuple[World, Sprite]) -> None:
    _, box = sprite
    for upstream in upstreams_in(RESOLV_CONF.read_text()):
        if not any(ip_address(upstream) in network for network in (*private.PRIVATE4, *private.PRIVATE6)):
            continue
        for run in (box.run, box.run_in_router):
            with pytest.raises(OSError):
                run(lambda upstream=upstream: ask_udp(question(MIRROR), upstream, timeout=0.3))
