"""What a server loads, and what it leaves to those who need it: each library costs memory as long as it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from spriggan.engine.store import sqlite_url

# Loads what ``spriggan serve`` does, opens a database, makes the application, and prints what is loaded.
PROGRAM = """
import asyncio, sys
import spriggan.cli.main, spriggan.cli.serve
from spriggan.engine import Engine, Options
from spriggan.engine.store import Store
from spriggan.server.app import create_app
from spriggan.server.serve import run

async def use(url):
    store = Store(url)
    await store.open()
    await store.close()

create_app(None)
asyncio.run(use(sys.argv[1]))
print(*sys.modules, sep="\\n")
"""

UNWANTED = {
    "alembic": "only databases of earlier versions are migrated",
    "mako": "it is Alembic's",
    "httpx": "pilots are asked by wire.exchange",
    "rich": "it is for terminals",
    "pygments": "it is for terminals",
    "websockets": "a WebSocket's bytes are handed on as they are",
    "zstandard": "only imports of images unpack",
    "spriggan.doctor.checks": "the machine is examined by a process that ends",
    "spriggan.image.build": "images are made by another process",
    "spriggan.image.importing": "images are made by another process",
    "spriggan.pilot": "pilots are processes of their own",
    "sqlalchemy.orm": "rows are plain data",
    "asyncssh": "nobody logs in by ssh",
}


def loaded_with(url: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def test_a_server_loads_only_what_it_needs(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "state.db")
    for _ in ("a new database", "one of this version"):
        loaded = loaded_with(url)
        assert {"spriggan.server.serve", "sqlalchemy", "spriggan.doctor.gate"} <= loaded
        assert {name: why for name, why in UNWANTED.items() if name in loaded} == {}
