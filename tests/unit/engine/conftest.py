"""An engine on a real pool."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from spriggan.engine import Engine, Options

from .world import World

OPTIONS = Options(idle_seconds=3600, default_storage_gb=1, stop_grace_seconds=0, spares=0)


@pytest.fixture
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts disks")
    if not Path("/dev/loop-control").exists():
        pytest.skip("needs loop devices")
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs btrfs-progs")
    base = tmp_path_factory.mktemp("e")
    made = World(base)
    yield made
    await made.box.clear()
    made.pool.close()
    shutil.rmtree(base)


@pytest.fixture
async def start(world: World) -> AsyncIterator[Callable[[], Engine]]:
    """Start engines on one data directory, one after the other."""
    started: list[Engine] = []

    async def run(options: Options = OPTIONS) -> Engine:
        engine = Engine(world.data, options, world.make_host)
        await engine.start()
        started.append(engine)
        return engine

    yield run
    for engine in started:
        await engine.close()
