"""A host for engine tests: the real pool, and a box in memory that mounts the real disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spriggan.box.box import State
from spriggan.disk import Pool, Reserve
from spriggan.disk.guard import Reading
from spriggan.engine.host import Host
from spriggan.engine.options import Options
from spriggan.errors import Broken, NotFound
from spriggan.image import Image, Layer
from spriggan.linux import copies, loop, mount
from spriggan.net.blockers import Blocker
from spriggan.net.claims import Claims
from spriggan.wire.spec import Limits, Policies, SpriteSpec, Uplink

IMAGE = Image(
    name="sprites",
    created="2026-01-01T00:00:00Z",
    distribution="debian bookworm",
    layers=(Layer(digest="0" * 64, stage="base", bytes=5, key="1"),),
    user="sprite",
    shell="/bin/zsh",
    environment={"LANG": "C.UTF-8"},
)


class MemoryBox:
    """Outlives engines as real boxes do. "Running" is that the disk is mounted at ``where(id)``."""

    kind = "container"

    def __init__(self, place: Path) -> None:
        self._place = place
        self.specs: dict[str, SpriteSpec] = {}
        self.states: dict[str, State] = {}
        self.freezes: set[str] = set()
        self.reasons: list[str] = []
        self.init_lives = True
        self.fail_policies = False
        self.fail_revival = False
        self.pilot_is_needed = False
        self.asked_to_retire = 0
        self.fail_take = False
        self.fail_start: Callable[[str], bool] = lambda sprite_id: False
        self._pilots: dict[str, asyncio.Server] = {}

    def where(self, sprite_id: str) -> Path:
        return self._place / sprite_id

    async def warm(self) -> None:
        return

    def expect(self) -> None:
        return

    async def start(self, spec: SpriteSpec, netns: int) -> None:
        os.fstat(netns)
        self._mount(spec.sprite_id, spec.disk)
        self.specs[spec.sprite_id] = spec
        self.states[spec.sprite_id] = State.NO_PILOT if spec.is_spare else State.RUNNING
        if not spec.is_spare:
            await self._serve(spec.sprite_id)

    async def take_spare(self, spec: SpriteSpec) -> None:
        if self.fail_take:
            raise Broken("its first process ended")
        self.specs[spec.sprite_id] = spec
        self.states[spec.sprite_id] = State.RUNNING
        await self._serve(spec.sprite_id)

    async def stop(self, sprite_id: str, *, grace: float) -> None:
        self._umount(sprite_id)
        for known in (self.specs, self.states):
            known.pop(sprite_id, None)
        self.freezes.discard(sprite_id)
        if pilot := self._pilots.pop(sprite_id, None):
            pilot.close()

    async def stop_inner(self, sprite_id: str, *, grace: float) -> None:
        assert sprite_id not in self.freezes, "a frozen process cannot end"
        self._umount(sprite_id)

    async def start_inner(self, sprite_id: str) -> None:
        self._mount(sprite_id, self.specs[sprite_id].disk)

    async def revive(self, sprite_id: str) -> None:
        if self.fail_revival:
            raise Broken("it will not serve")
        if self.states[sprite_id] is State.RETIRED:
            await self._serve(sprite_id)
        self.states[sprite_id] = State.RUNNING

    async def retire(self, sprite_id: str) -> bool:
        self.asked_to_retire += 1
        if self.pilot_is_needed:
            return False
        self._pilots.pop(sprite_id).close()
        self.pilot_socket(sprite_id).unlink(missing_ok=True)
        self.states[sprite_id] = State.RETIRED
        return True

    def state(self, sprite_id: str) -> State:
        return self.states.get(sprite_id, State.GONE)

    async def set_policies(self, sprite_id: str, policies: Policies) -> None:
        if self.fail_policies:
            raise Broken("the pilot does not answer")
        self.specs[sprite_id] = replace(self.specs[sprite_id], policies=policies)

    def limit(self, sprite_id: str, limits: Limits) -> None:
        self.specs[sprite_id] = replace(self.specs[sprite_id], limits=limits)

    def freeze(self, sprite_id: str) -> None:
        self.freezes.add(sprite_id)

    def thaw(self, sprite_id: str) -> None:
        self.freezes.discard(sprite_id)

    def frozen(self, sprite_id: str) -> bool:
        return sprite_id in self.freezes

    def list(self) -> list[str]:
        return sorted(self.specs)

    def disk_fd(self, sprite_id: str) -> int:
        return os.open(self.where(sprite_id), os.O_RDONLY | os.O_DIRECTORY)

    def spec(self, sprite_id: str) -> SpriteSpec | None:
        return self.specs.get(sprite_id)

    def pilot_socket(self, sprite_id: str) -> Path:
        return self._place / f"{sprite_id[-12:]}.sock"

    async def close(self) -> None:
        return

    def lose(self, sprite_id: str) -> None:
        """All its processes end."""
        self._umount(sprite_id)
        del self.states[sprite_id]

    async def clear(self) -> None:
        for sprite_id in self.list():
            await self.stop(sprite_id, grace=0)

    async def _serve(self, sprite_id: str) -> None:
        self._pilots[sprite_id] = await asyncio.start_unix_server(self._answer, self.pilot_socket(sprite_id))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reasons = ", ".join(f'"{reason}"' for reason in self.reasons)
        body = f'{{"running": {str(self.init_lives).lower()}, "reasons": [{reasons}]}}'
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write((head + body).encode())
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    def _mount(self, sprite_id: str, disk: str) -> None:
        if self.fail_start(sprite_id):
            raise Broken("it will not start")
        place = self.where(sprite_id)
        place.mkdir(parents=True, exist_ok=True)
        if mount.is_mount_point(place):
            return
        with loop.attach(disk) as device:
            mount.mount(device, place, "ext4")

    def _umount(self, sprite_id: str) -> None:
        if mount.is_mount_point(self.where(sprite_id)):
            mount.umount(self.where(sprite_id))
            copies.unmount(self.where(sprite_id))  # somebody else's namespace began meanwhile


class Images:
    """One image whose layers need no mounts."""

    def get(self, name: str) -> Image:
        if name != IMAGE.name:
            raise NotFound(f"there is no image {name!r}")
        return IMAGE

    def mount_layers(self, digests: list[str]) -> list[Path]:
        return [Path("/nowhere") for _ in digests]


class Uplinks:
    """Descriptors of this process's own network; slots are remembered as links would be."""

    def __init__(self) -> None:
        self.slots: set[int] = set()

    def create(self, slot: int) -> tuple[int, Uplink]:
        self.slots.add(slot)
        netns = os.open("/proc/self/ns/net", os.O_RDONLY)
        return netns, Uplink("uplink0", "169.254.1.1/31", "169.254.1.0", "", "", 1500)

    def list_links(self) -> list[int]:
        return sorted(self.slots)

    def remove(self, slot: int) -> None:
        self.slots.discard(slot)


class Rules:
    """Stand as soon as they are installed."""

    def __init__(self) -> None:
        self.blockers: list[Blocker] = []

    def install(self) -> None:
        return

    def present(self) -> bool:
        return True

    def forward_blockers(self) -> list[Blocker]:
        return self.blockers


class TestReserve(Reserve):
    """A reserve that can be told what it sees."""

    __test__ = False
    said: Reading | None = None

    def read(self) -> Reading:
        return self.said or super().read()


class World:
    """What outlives an engine: hand ``make_host`` to each one that is started on ``data``."""

    def __init__(self, base: Path) -> None:
        self.data = base / "data"
        self.runtime = base / "run"
        self.box = MemoryBox(base / "box")
        self.uplinks = Uplinks()
        self.pool = Pool(self.data)
        self.reserve = TestReserve(self.pool, 0)
        (base / "box").mkdir()

    def make_host(self, instance: str, data: Path, options: Options) -> Host:
        return Host(
            instance=instance,
            runtime=self.runtime / instance,
            pool=self.pool,
            reserve=self.reserve,
            images=Images(),  # type: ignore[arg-type]
            claims=Claims(instance, data, runtime=self.runtime),
            uplinks=self.uplinks,  # type: ignore[arg-type]
            rules=Rules(),  # type: ignore[arg-type]
            boxes={"container": self.box},
        )
