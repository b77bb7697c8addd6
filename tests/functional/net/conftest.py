"""Fixtures: a host with an instance, connected to a far side."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from net_world import FAR4, FAR6, HOST4, HOST6, PRIVATE, World, connect, serving

from spriggan.linux import namespaces


@pytest.fixture(autouse=True)
def _needs() -> None:
    if os.geteuid():
        pytest.skip("needs root")
    if not shutil.which("nft"):
        pytest.skip("needs nft")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as undo:
        host, far = namespaces.new_network(), namespaces.new_network()
        undo.callback(os.close, host)
        undo.callback(os.close, far)
        namespaces.in_network(host, lambda: connect(far))
        new = World("t" + secrets.token_hex(4)[:7], host, far, tmp_path / "run")
        undo.enter_context(serving(far, [FAR4, FAR6, PRIVATE]))
        undo.enter_context(serving(host, [HOST4, HOST6, "127.0.0.1", "::1", "0.0.0.0"]))
        new.on_host(new.rules.install)
        undo.callback(lambda: new.on_host(new.rules.remove))
        yield new
