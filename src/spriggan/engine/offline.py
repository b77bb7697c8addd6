"""``down``: everything of a data directory that is not a file goes, with or without a server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from spriggan.box.container import ContainerBox
from spriggan.engine import instance, rows, store
from spriggan.engine.host import Host, this_host
from spriggan.engine.options import Options
from spriggan.errors import Broken, Conflict, NotFound, SprigganError
from spriggan.linux import process
from spriggan.net import addresses

SERVER_PATIENCE_S = 60.0
ALL = 1_000_000_000

Say = Callable[[str], None]


async def down(data: Path, say: Say = lambda line: None, options: Options | None = None) -> None:
    """Stop the server and every sprite of ``data``, and remove all they have in the kernel.

    Disks, checkpoints and records stay. What cannot be removed does not keep the rest from
    being removed; the first such error is raised at the end.
    """
    if await asyncio.to_thread(instance.read_id, data) is None:
        raise NotFound(f"{data} is not a data directory", hint="name the one to take down with --data")
    lock = instance.Instance(data)
    identity = await _take_lock(lock, data, say)
    try:
        await _remove(this_host(identity, data, options or Options()), data, say)
    finally:
        lock.close()


async def _take_lock(lock: instance.Instance, data: Path, say: Say) -> str:
    """Become the one that holds the data directory; a server that does is asked to end."""
    deadline, asked = time.monotonic() + SERVER_PATIENCE_S, None
    while True:
        try:
            return await asyncio.to_thread(lock.open)
        except Conflict:
            pid = instance.holder(data)
            if time.monotonic() > deadline:
                raise
            if pid is not None and pid != asked:
                say(f"stopping the server (process {pid})")
                process.kill_quietly(pid, signal.SIGTERM)
                asked = pid
            await asyncio.sleep(0.1)


async def _remove(host: Host, data: Path, say: Say) -> None:
    errors: list[Exception] = []

    async def attempt(step: Awaitable[object]) -> None:
        try:
            await step
        except (SprigganError, OSError) as error:
            errors.append(error)

    for box in host.boxes.values():
        for sprite_id in await asyncio.to_thread(box.list):
            say(f"stopping {sprite_id}")
            await attempt(box.stop(sprite_id, grace=Options.stop_grace_seconds))
    await attempt(_record(data))
    await attempt(asyncio.to_thread(_remove_links, host))
    await attempt(asyncio.to_thread(host.rules.remove))
    # Cgroups and runtime files are the instance's, whatever kinds of box they were for.
    await attempt(asyncio.to_thread(ContainerBox(host.instance, host.runtime).remove_instance))
    say("unmounting")
    await attempt(asyncio.to_thread(host.images.unmount_all))
    await attempt(asyncio.to_thread(host.pool.close))
    await attempt(asyncio.to_thread((data / "api.sock").unlink, missing_ok=True))
    if not errors:  # while anything is left, its slots must not be given to others
        await attempt(asyncio.to_thread(host.claims.release_all))
    if errors:
        first = errors[0]
        raise (
            first if isinstance(first, SprigganError) else Broken(str(first), hint="run it again")
        ) from first


async def _record(data: Path) -> None:
    """Write down that all is cold, so that the next start does not take it for a loss."""
    path = data / "state.db"
    if not path.exists():
        return
    records = store.Store(store.sqlite_url(path))
    try:
        await records.open()
        await records.run(rows.all_cold)
    finally:
        await records.close()


async def layers_in_use(data: Path) -> set[str]:
    """Digests of the layers that sprites of ``data`` are made of."""
    path = data / "state.db"
    if not path.exists():
        return set()
    records = store.Store(store.sqlite_url(path))
    try:
        await records.open()
        found = await records.run(lambda tx: rows.sprites(tx, "", ALL, ""))
    finally:
        await records.close()
    return {digest for row in found for digest in row.layers}


def _remove_links(host: Host) -> None:
    host.claims.acquire()
    for slot in host.uplinks.list_links():
        if slot // addresses.BLOCK in host.claims.blocks:
            host.uplinks.remove(slot)
