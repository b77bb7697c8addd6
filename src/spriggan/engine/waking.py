"""From cold to running and back: a box is put around a disk, frozen, thawed, taken away.

Everything here wants the sprite's lock held.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import replace
from typing import Any

from spriggan import faults
from spriggan.box.box import Box, State
from spriggan.disk.repair import Repair
from spriggan.engine import pilot, rows
from spriggan.engine.core import Core
from spriggan.engine.limits import check_running
from spriggan.engine.live import Live, Phase
from spriggan.engine.records import Health, SpriteRow
from spriggan.errors import Broken, DamagedDisk, NoSpace, NotFound, SprigganError, Unavailable
from spriggan.linux import loop
from spriggan.net import addresses
from spriggan.wire.spec import Limits, Policies, SpriteSpec, Uplink, User

log = logging.getLogger(__name__)

_ENDED = "its first process ended"
_BRIEF = 500  # characters of a report that go into a sprite's last error; the log has more

UP = (Phase.RUNNING, Phase.WARM, Phase.PAUSED)
# A start is work for a processor. When many are asked for at once, the first ones are to be ready soon, and not
# all of them together when the last one is: clients wait for some seconds only.
AT_ONCE = max(4, 2 * (os.cpu_count() or 1))


def slot_of(spec: SpriteSpec) -> int:
    """The slot a sprite was started in."""
    return (spec.first_id - addresses.FIRST_ID) // addresses.ID_COUNT


def limits_of(row: SpriteRow) -> Limits:
    """What a sprite may use: as it was created, or as its resources policy says."""
    memory = row.policies.get("resources", {}).get("memory") or {}
    return Limits(
        memory_mb=memory.get("limit_mb") or row.config.ram_mb, cpus=row.config.cpus, pids=row.config.pids
    )


def policies_of(row: SpriteRow) -> Policies:
    """The policies that a pilot enforces."""
    return Policies(
        network=row.policies.get("network", {}).get("rules", []),
        privileges=row.policies.get("privileges", {}),
    )


class Waking:
    """Moves sprites between cold, running and warm."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._slots = asyncio.Lock()
        self._starting = asyncio.Semaphore(AT_ONCE)

    async def prepare(self) -> None:
        """Do beforehand what the first sprite would wait for."""
        host = self._core.host
        with contextlib.suppress(NotFound):  # there may be no image yet
            image = await asyncio.to_thread(host.images.get, self._core.options.default_image)
            await asyncio.to_thread(host.images.mount_layers, image.digests)
        for box in host.boxes.values():
            await box.warm()

    async def up(self, row: SpriteRow, live: Live) -> SpriteRow:
        """Make the sprite run, whatever it does now; return its row as it is then.

        Raises ``NoSpace`` if it is paused, ``Broken`` if it does not start.
        """
        if live.phase is Phase.PAUSED:
            raise NoSpace(
                live.paused_because, hint="free space: destroy sprites, delete checkpoints or files"
            )
        await self.attend(row, live)
        if live.phase in (Phase.WARM, Phase.COLD):
            check_running(self._core.options.max_running, self._running())
        if live.phase is Phase.WARM:
            await asyncio.to_thread(self.box(row).thaw, row.id)
            faults.point("wake:thawed")
            live.move(Phase.RUNNING)
            row = await self._record(row, live, last_running_at=rows.now())
        elif live.phase is Phase.COLD:
            row = await self._start(row, live)
        live.busy_at = time.monotonic()
        return row

    async def rest(self, row: SpriteRow, live: Live) -> None:
        """running to warm: the processes stand still, in memory."""
        if live.phase is Phase.RUNNING:
            await asyncio.to_thread(self.box(row).freeze, row.id)
            faults.point("rest:frozen")
            live.move(Phase.WARM)
            live.warm_at = time.monotonic()
            await self._record(row, live, last_warming_at=rows.now(), last_running_at=rows.now())

    async def down(self, row: SpriteRow, live: Live, *, grace: float) -> None:
        """To cold: the processes end, the disk stays."""
        await self.discard(row, live)
        if live.phase not in UP:
            return
        frozen = live.phase is not Phase.RUNNING
        live.move(Phase.STOPPING)
        try:
            await self._take_away(row, live, frozen=frozen, grace=grace)
        except BaseException as error:
            live.move(Phase.RUNNING)  # as far as anybody knows; the next look at it finds out
            await self._record(row, live, last_error=f"it could not be stopped: {error}")
            raise
        live.move(Phase.COLD)
        await self._record(row, live, last_running_at=rows.now())
        faults.point("stop:done")

    async def put_spare(self, row: SpriteRow, live: Live) -> None:
        """Put a box around the disk of a sprite that has no name yet."""
        live.spare = await self._put_box_around(row, live, capability="")

    async def discard(self, row: SpriteRow, live: Live) -> None:
        """Take away what waits for the first wake of a sprite, or for a name. Fine if nothing does."""
        if live.phase in (Phase.CREATING, Phase.COLD) and live.slot is not None:
            await self._take_away(row, live, frozen=False, grace=0)

    async def pause(self, row: SpriteRow, live: Live, because: str) -> None:
        """Hold a sprite that writes while space is short."""
        if live.phase is Phase.RUNNING:
            await asyncio.to_thread(self.box(row).freeze, row.id)
            live.move(Phase.PAUSED)
            live.paused_because = because
            self._core.changes.ring()

    async def unpause(self, row: SpriteRow, live: Live) -> None:
        """Let it go on."""
        if live.phase is Phase.PAUSED:
            await asyncio.to_thread(self.box(row).thaw, row.id)
            live.move(Phase.RUNNING)
            live.paused_because = ""
            self._core.changes.ring()
            live.busy_at = time.monotonic()

    async def check(self, row: SpriteRow, live: Live) -> str | None:
        """Notice that a box is gone or its pilot dead, and act on it; what was lost, or None."""
        if live.phase not in UP:
            return None
        state = await asyncio.to_thread(self.box(row).state, row.id)
        live.retired = state is State.RETIRED
        if state in (State.RUNNING, State.RETIRED):
            return None
        if state is State.NO_PILOT:
            return await self.revive(row, live)
        return await self.lose(row, live, _ENDED if state is State.ENDED else "all its processes ended")

    async def attend(self, row: SpriteRow, live: Live) -> str | None:
        """The same for what needs a pilot: one that retired is followed by another."""
        lost = await self.check(row, live)
        if live.retired:
            try:
                async with self._starting:
                    await self.box(row).revive(row.id)
            except (SprigganError, OSError) as error:
                return await self.lose(row, live, f"no pilot could be started for it again: {error}")
            live.retired = False
        return lost

    async def retire(self, row: SpriteRow, live: Live) -> None:
        """Have the pilot end until somebody needs one; the sprite stays as it is. One that is needed stays."""
        if live.asked:
            return
        live.retired = True  # so that nobody asks it anything from here on
        try:
            live.retired = await self.box(row).retire(row.id)
        except BaseException:
            live.retired = False
            raise
        if live.retired:
            faults.point("rest:retired")
        else:
            live.needed_at = time.monotonic()

    async def revive(self, row: SpriteRow, live: Live) -> str:
        """Give a sprite whose pilot died a new one; its processes go on, its sessions are lost."""
        try:
            await self.box(row).revive(row.id)
        except (SprigganError, OSError) as error:
            return await self.lose(row, live, f"its pilot died and could not be started again: {error}")
        lost = "its pilot died and was started again; the sessions of the old one are lost"
        await self._record(row, live, last_error=lost)
        return lost

    async def lose(self, row: SpriteRow, live: Live, why: str) -> str:
        """A sprite that was up is cold now, and says why."""
        log.warning("%s: %s", row.name, why)
        await self._take_away(row, live, frozen=False, grace=0)
        live.move(Phase.COLD)
        live.lost = why
        await self._record(row, live, last_error=why)
        return why

    async def look(self, row: SpriteRow, live: Live) -> None:
        """Find out whether the sprite still runs as it should, and why it is awake."""
        await self.check(row, live)
        if live.phase is Phase.RUNNING and not await self._ask(row, live):
            await self.lose(row, live, _ENDED)

    async def health(self, row: SpriteRow, live: Live | None) -> Health:
        """How the sprite is, as far as one can see without a lock and without waking it."""
        while live is not None and live.phase is not Phase.COLD:
            moment = live.phase, live.run
            ails = await self._ails(row, live)
            if (live.phase, live.run) == moment:  # else it was seen on its way from one to the other
                well = "hibernated" if live.phase is Phase.WARM else "healthy"
                return Health(self._core.view(row), "unhealthy" if ails else well, ails)
        return Health(self._core.view(row), "error" if row.last_error else "hibernated", row.last_error)

    async def _ails(self, row: SpriteRow, live: Live) -> str | None:
        """What is wrong with a sprite that is not cold."""
        if live.phase is Phase.PAUSED:
            return live.paused_because
        if live.phase not in UP:
            return f"it is {live.phase.value}"
        state = await asyncio.to_thread(self.box(row).state, row.id)
        if state not in (State.RUNNING, State.RETIRED):
            dead = "its pilot is dead" if state is State.NO_PILOT else "all its processes ended"
            return f"{_ENDED if state is State.ENDED else dead}; its next use starts it again"
        if live.phase is Phase.RUNNING:
            try:
                if not (await self._status(row, live)).running:
                    return f"{_ENDED}; its next use starts it again"
            except Unavailable as error:
                return error.message
        return None

    async def reasons(self, row: SpriteRow, live: Live) -> list[str]:
        """Why the sprite is awake, asked of its pilot now. Needs no lock."""
        if live.phase is Phase.RUNNING:
            await self._ask(row, live)
        return live.reasons

    async def _ask(self, row: SpriteRow, live: Live) -> bool:
        """Ask the pilot for its reasons; whether the sprite runs. A pilot that hangs is a reason, too."""
        try:
            status = await self._status(row, live)
        except Unavailable as error:
            live.pilot_reasons = [error.message]
            return True
        live.pilot_reasons = status.reasons
        return status.running

    async def _status(self, row: SpriteRow, live: Live) -> pilot.Status:
        """What the pilot says; of a sprite that needs none, what it said last. Raises ``Unavailable``."""
        if live.retired:
            return pilot.Status(running=True, reasons=[])
        with live.asking():
            return await pilot.status(self.box(row).pilot_socket(row.id))

    def box(self, row: SpriteRow) -> Box:
        """The kind of box this sprite runs in."""
        return self._core.host.boxes[row.box]

    def _running(self) -> int:
        """How many sprites run or are about to."""
        phases = [live.phase for live in self._core.lives.values()]
        return sum(phase in (Phase.RUNNING, Phase.WAKING, Phase.RESTORING) for phase in phases)

    async def _start(self, row: SpriteRow, live: Live) -> SpriteRow:
        live.move(Phase.WAKING)
        try:
            repaired = await self._start_repaired(row, live)
        except BaseException as error:
            try:
                await self._take_away(row, live, frozen=False, grace=0)
            except Exception:
                log.exception("%s: what a failed start left could not be removed", row.name)
            live.move(Phase.COLD)
            failure = _for_people(error)
            await self._record(row, live, last_error=failure.message)
            raise failure from error
        live.move(Phase.RUNNING)
        known: dict[str, Any] = {
            "status": live.status,
            "last_running_at": rows.now(),
            "last_error": repaired or live.lost,
        }
        live.lost = None
        # Nobody waits for it: the next server asks the box. All that comes later is written down later.
        self._core.spawn(self._core.update(row.id, **known))
        faults.point("wake:done")
        return replace(row, **known)

    async def _start_repaired(self, row: SpriteRow, live: Live) -> str | None:
        """Start the sprite, after a repair if its disk does not mount; say what was repaired.

        Raises ``DamagedDisk`` with the report if that did not help, or was tried before in vain.
        """
        pool, said = self._core.host.pool, None
        try:
            await self._in_turn(row, live)
        except DamagedDisk as damage:
            await self._take_away(row, live, frozen=False, grace=0)
            tried = await asyncio.to_thread(pool.repair, row.id)
            log.warning("%s: %s; e2fsck -p:\n%s", row.name, damage.message, tried.report)
            if not tried.mended:
                raise _beyond_repair(row, tried) from damage
            try:
                await self._in_turn(row, live)
            except DamagedDisk as error:
                raise _beyond_repair(row, tried) from error
            said = f"its disk did not mount and was repaired by e2fsck: {_brief(tried.report)}"
        await asyncio.to_thread(pool.mounted_well, row.id)
        return said

    async def _in_turn(self, row: SpriteRow, live: Live) -> None:
        async with self._starting:
            if not await self._take_spare(row, live):
                await self._put_box_around(row, live, self._core.capabilities.new(row.id))

    async def _take_spare(self, row: SpriteRow, live: Live) -> bool:
        """Make the box that waits the sprite's, if it is still as the sprite has to be; else take it away."""
        spare = live.spare
        if spare is None:
            return False
        try:
            if spare.limits == limits_of(row) and spare.policies == policies_of(row):
                capability = self._core.capabilities.new(row.id)
                spec = self._spec(row, slot_of(spare), spare.layers, spare.uplink, capability)
                await self.box(row).take_spare(spec)
                live.spare = None
                faults.point("wake:spare")
                return True
        except (SprigganError, OSError) as error:
            log.warning("%s: its spare did not serve, so it starts anew: %s", row.name, error)
        await self._take_away(row, live, frozen=False, grace=0)
        return False

    async def _put_box_around(self, row: SpriteRow, live: Live, capability: str) -> SpriteSpec:
        host = self._core.host
        if await asyncio.to_thread(loop.find, host.pool.disk_path(row.id)):
            # Mounting it a second time would destroy it.
            raise Unavailable(f"the disk of {row.name} is still in use", hint="try again in a moment")
        async with self._slots:
            used = {other.slot for other in self._core.lives.values() if other.slot is not None}
            live.slot = await asyncio.to_thread(host.claims.take, used)
        faults.point("wake:slot")
        layers = await asyncio.to_thread(host.images.mount_layers, row.layers)
        faults.point("wake:layers")
        netns, uplink = await asyncio.to_thread(host.uplinks.create, live.slot)
        faults.point("wake:uplink")
        try:
            spec = self._spec(row, live.slot, [str(layer) for layer in layers], uplink, capability)
            await self.box(row).start(spec, netns)
            faults.point("wake:box")
            return spec
        finally:
            os.close(netns)  # from here on the pilot, which lives in it, keeps it

    async def _take_away(self, row: SpriteRow, live: Live, *, frozen: bool, grace: float) -> None:
        host, box = self._core.host, self.box(row)
        if frozen and grace > 0:  # a frozen process cannot hear that it should end
            await asyncio.to_thread(box.thaw, row.id)
        await box.stop(row.id, grace=grace)
        faults.point("stop:box")
        self._core.capabilities.forget(row.id)
        live.paused_because, live.pilot_reasons = "", []
        live.retired, live.spare = False, None
        if live.slot is not None:
            await asyncio.to_thread(host.uplinks.remove, live.slot)
            faults.point("stop:uplink")
            await asyncio.to_thread(host.claims.release, live.slot)
            live.slot = None

    async def _record(self, row: SpriteRow, live: Live, **values: object) -> SpriteRow:
        return await self._core.update(row.id, status=live.status, **values)

    def _spec(
        self, row: SpriteRow, slot: int, layers: list[str], uplink: Uplink, capability: str
    ) -> SpriteSpec:
        core = self._core
        return SpriteSpec(
            sprite_id=row.id,
            name=row.name,
            hostname=row.name,
            run_dir=str(core.host.runtime / row.id),
            containers_dir=str(core.host.runtime / "crun"),
            spool_dir=str(core.data / "spool" / row.id),
            disk=str(core.host.pool.disk_path(row.id)),
            layers=layers,
            first_id=addresses.first_id(slot),
            cgroup=f"/spriggan-{core.host.instance}/{row.id}",
            uplink=uplink,
            limits=limits_of(row),
            policies=policies_of(row),
            user=User(name=row.user, shell=row.shell, directory=row.working_dir),
            environment={**row.image_environment, **row.environment},
            server_socket=str(core.data / "api.sock"),
            capability=capability,
            checkpoints_dir=str(core.host.pool.checkpoints_dir(row.id)),
        )


def _for_people(error: BaseException) -> SprigganError:
    if isinstance(error, SprigganError):
        return error
    return Broken(f"the sprite does not start: {error or type(error).__name__}", hint="see the server's log")


def _beyond_repair(row: SpriteRow, tried: Repair) -> DamagedDisk:
    before = " (tried before, and not again)" if tried.again else ""
    return DamagedDisk(
        f"the disk of {row.name} does not mount, and e2fsck -p could not repair it{before}: {_brief(tried.report)}",
        hint=f"restore a checkpoint: spriggan checkpoint restore -s {row.name} <id> "
        f"('spriggan checkpoint list -s {row.name}' shows them)",
    )


def _brief(report: str) -> str:
    """A report in one line."""
    line = " ".join(report.split())
    return line if len(line) <= _BRIEF else f"{line[:_BRIEF]}…"
