"""The machine that sprites run on: its pool, images, network and boxes, for one instance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spriggan.box.box import Box
from spriggan.box.container import ContainerBox
from spriggan.disk.guard import Reserve
from spriggan.disk.pool import Pool
from spriggan.engine.options import Options
from spriggan.image.store import ImageStore
from spriggan.net.claims import Claims
from spriggan.net.host import HostRules
from spriggan.net.uplinks import Uplinks, pair_is_free


@dataclass(frozen=True)
class Host:
    """Everything of the machine that an engine drives. All but the boxes block: call them in a thread."""

    instance: str
    runtime: Path  # of this instance; in memory, so gone after a reboot
    pool: Pool
    reserve: Reserve
    images: ImageStore
    claims: Claims
    uplinks: Uplinks
    rules: HostRules
    boxes: dict[str, Box]  # by kind


def this_host(instance: str, data: Path, options: Options) -> Host:
    """The parts as they are on a real machine. Nothing is touched yet."""
    runtime = options.runtime / instance
    pool = Pool(data)
    container = ContainerBox(instance, runtime)
    return Host(
        instance=instance,
        runtime=runtime,
        pool=pool,
        reserve=Reserve(pool, options.reserve_bytes),
        images=ImageStore(data),
        claims=Claims(instance, data, runtime=options.runtime, is_free=pair_is_free),
        uplinks=Uplinks(instance),
        rules=HostRules(instance, runtime=options.runtime),
        boxes={container.kind: container},
    )
