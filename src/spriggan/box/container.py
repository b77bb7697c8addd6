"""The ``container`` box: a pilot on the host itself, in the sprite's cgroup."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict, replace
from pathlib import Path

from spriggan import faults
from spriggan.box import ceilings
from spriggan.box.box import State
from spriggan.box.zygote import Zygote
from spriggan.errors import Broken, Conflict, DamagedDisk
from spriggan.linux import loop, migration, process
from spriggan.linux.cgroup import Group, Hierarchies, hierarchies
from spriggan.linux.migration import Readiness
from spriggan.wire.exchange import ask
from spriggan.wire.spec import Limits, Policies, SpriteSpec

START_TIMEOUT_S = 60.0
UNMOUNT_TIMEOUT_S = 30.0
POLICY_TIMEOUT_S = 20.0
MAX_ANSWER = 1 << 20
RETIRE_TIMEOUT_S = 10.0
# Its own 40 MiB, the file operations that it does, and the file cache of what they write.
PILOT_MEMORY = 512 << 20
PILOT_PIDS = 512
INITS = 2  # of a sprite's processes: its first one, and what that keeps running
DISK_IN_NAMESPACE = "root/mnt/user-data"  # below the run directory, as the pilot mounts it


class ContainerBox:
    """Runs sprites as containers. ``runtime`` is the instance's runtime directory."""

    kind = "container"

    def __init__(self, instance: str, runtime: Path) -> None:
        self._instance = instance
        self._runtime = runtime
        self._zygote = Zygote(runtime)
        self._hierarchies: Hierarchies | None = None
        self._readiness: Readiness | None = None

    async def warm(self) -> None:
        self._runtime.mkdir(parents=True, exist_ok=True, mode=0o711)
        if not await asyncio.to_thread(migration.favor_moves):
            self._readiness = Readiness(self._host())
        await self._zygote.warm()

    def expect(self) -> None:
        if self._readiness is not None:
            self._readiness.expect()

    async def start(self, spec: SpriteSpec, netns: int) -> None:
        run_dir = self._run_dir(spec.sprite_id)
        try:
            await asyncio.to_thread(self._prepare, spec, run_dir)
            faults.point("start:prepared")
            await self._fork(run_dir, spec.layers, netns)
        except BaseException:
            await asyncio.shield(self.stop(spec.sprite_id, grace=0))
            raise

    async def take_spare(self, spec: SpriteSpec) -> None:
        await asyncio.to_thread(self._write_spec, spec)
        faults.point("take:spec")
        await self._fork_beside_keeper(spec.sprite_id)

    async def revive(self, sprite_id: str) -> None:
        keeper = self._keeper_pid(sprite_id)
        if keeper is None:
            raise Broken(f"Nothing holds the namespaces of {sprite_id} any more.")
        # What the old pilot left beside the keeper: its files helper, a successor half made.
        await asyncio.to_thread(self._group(sprite_id).child("pilot").kill_own, spare={keeper})
        faults.point("revive:cleared")
        await self._fork_beside_keeper(sprite_id)

    async def _fork_beside_keeper(self, sprite_id: str) -> None:
        # The namespaces come from the keeper; the descriptor only fills the place.
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._fork(self._run_dir(sprite_id), [], null)
        finally:
            os.close(null)

    async def retire(self, sprite_id: str) -> bool:
        pid = self._pilot_pid(sprite_id)
        if pid is None:
            return False
        try:
            answer = await self._call(sprite_id, "/pilot/retire", timeout=RETIRE_TIMEOUT_S)
            if not json.loads(answer)["retired"]:
                return False
            async with asyncio.timeout(RETIRE_TIMEOUT_S):
                await process.ended(pid)
        except Broken:
            pass  # it may have come as far as to write down that it retires
        except TimeoutError:
            process.kill_quietly(pid)  # what it knew is written down
            await process.ended(pid)
        return self.state(sprite_id) is State.RETIRED

    async def stop(self, sprite_id: str, *, grace: float) -> None:
        if grace > 0:
            with contextlib.suppress(Broken, OSError):
                await self._end_gently(sprite_id, grace)
        await asyncio.to_thread(self._clear, sprite_id)

    async def stop_inner(self, sprite_id: str, *, grace: float) -> None:
        await self._call(sprite_id, f"/pilot/stop?grace={grace}", timeout=grace + UNMOUNT_TIMEOUT_S)

    async def start_inner(self, sprite_id: str) -> None:
        await self._call(sprite_id, "/pilot/start", timeout=START_TIMEOUT_S)

    async def set_policies(self, sprite_id: str, policies: Policies) -> None:
        spec = self.spec(sprite_id)
        if spec is None:
            raise Broken(f"There is no running {sprite_id}.")
        await asyncio.to_thread(self._write_spec, replace(spec, policies=policies))
        body = json.dumps(asdict(policies)).encode()
        await self._call(sprite_id, "/pilot/policies", timeout=POLICY_TIMEOUT_S, method="PUT", body=body)

    def limit(self, sprite_id: str, limits: Limits) -> None:
        spec = self.spec(sprite_id)
        if spec is None:
            raise Broken(f"There is no running {sprite_id}.")
        box = self._group(sprite_id).child("box")
        in_use = box.memory_in_use()
        if in_use > limits.memory_mb << 20:
            raise Conflict(
                f"the sprite's programs use {in_use >> 20} MiB now, more than {limits.memory_mb} MiB",
                hint="end some of them first",
            )
        self._limit(box, limits)
        self._write_spec(replace(spec, limits=limits))

    def state(self, sprite_id: str) -> State:
        # Asked before every command, and the pilot is one process: to look through the groups takes longer.
        while True:
            last = self._last_pilot(sprite_id)
            if process.named(last) is not None:
                return State.RUNNING
            found = self._without_pilot(sprite_id, last)
            # Whoever looks may hold no lock. Meanwhile another pilot may have been started, and even
            # have retired, and then what was read is of no one moment.
            if self._last_pilot(sprite_id) == last:
                return found

    def _without_pilot(self, sprite_id: str, last: str) -> State:
        """How a sprite is whose ``last`` pilot has ended."""
        if self._pilot_retired(sprite_id, last):
            init = process.written_down(self._run_dir(sprite_id) / "init")
            return State.ENDED if init is None else State.RETIRED
        return State.NO_PILOT if self._group(sprite_id).pids() else State.GONE

    def freeze(self, sprite_id: str) -> None:
        self._group(sprite_id).child("box").freeze()

    def thaw(self, sprite_id: str) -> None:
        self._group(sprite_id).child("box").thaw()

    def frozen(self, sprite_id: str) -> bool:
        return self._group(sprite_id).child("box").frozen()

    def list(self) -> list[str]:
        found: set[str] = set()
        if self._runtime.exists():
            found |= {path.name for path in self._runtime.glob("sprite-*")}
        for root in self._host().roots():
            found |= {path.name for path in (root / f"spriggan-{self._instance}").glob("sprite-*")}
        return sorted(found)

    def disk_fd(self, sprite_id: str) -> int:
        pids = self._group(sprite_id).child("pilot").pids()
        for pid in sorted(pids):
            path = f"/proc/{pid}/root{self._run_dir(sprite_id)}/{DISK_IN_NAMESPACE}"
            with contextlib.suppress(OSError):
                # Not os.path.ismount: it resolves /proc/<pid>/root to this process's own root.
                if Path(path).stat().st_dev != Path(f"{path}/..").stat().st_dev:
                    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        raise Broken(f"The disk of {sprite_id} is not mounted.")

    def spec(self, sprite_id: str) -> SpriteSpec | None:
        try:
            return SpriteSpec.from_json((self._run_dir(sprite_id) / "spec.json").read_text())
        except (OSError, ValueError):
            return None

    def pilot_socket(self, sprite_id: str) -> Path:
        return self._run_dir(sprite_id) / "pilot.sock"

    async def close(self) -> None:
        if self._readiness is not None:
            await asyncio.to_thread(self._readiness.close)
            self._readiness = None
        await asyncio.to_thread(self._zygote.close)

    def remove_instance(self) -> None:
        """Remove the instance's cgroup and runtime directory; all its sprites must be stopped."""
        group = Group(f"/spriggan-{self._instance}", self._host())
        group.kill()
        group.remove()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _host(self) -> Hierarchies:
        if self._hierarchies is None:
            self._hierarchies = hierarchies()
        return self._hierarchies

    def _group(self, sprite_id: str) -> Group:
        return Group(self.cgroup(sprite_id), self._host())

    def cgroup(self, sprite_id: str) -> str:
        """The path of the sprite's cgroup below each hierarchy's root."""
        return f"/spriggan-{self._instance}/{sprite_id}"

    def _run_dir(self, sprite_id: str) -> Path:
        return self._runtime / sprite_id

    def _pilot_pid(self, sprite_id: str) -> int | None:
        """The pid of the sprite's living pilot."""
        return process.written_down(self._run_dir(sprite_id) / "pilot")

    def _last_pilot(self, sprite_id: str) -> str:
        """The last pilot that was started, living or not, as it is written down; empty if there was none."""
        try:
            return (self._run_dir(sprite_id) / "pilot").read_text()
        except FileNotFoundError:
            return ""

    def _pilot_retired(self, sprite_id: str, last: str) -> bool:
        """Whether the ``last`` pilot, which has ended, left all that another one needs."""
        try:
            same = (self._run_dir(sprite_id) / "retired").read_text() == last
        except FileNotFoundError:
            return False
        return same and self._keeper_pid(sprite_id) is not None

    def _keeper_pid(self, sprite_id: str) -> int | None:
        """The pid of the living process that holds the sprite's namespaces; its pilot wrote it down."""
        try:
            known = json.loads((self._run_dir(sprite_id) / "keeper").read_text())
            pid, started = int(known["pid"]), int(known["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return pid if process.lives(pid, started) else None

    def _prepare(self, spec: SpriteSpec, run_dir: Path) -> None:
        """Make the cgroups with their limits and the runtime directory."""
        ceilings.lift()
        group = self._group(spec.sprite_id)
        box, inner = group.child("box"), group.child("box").child("inner")
        for each in (group.child("pilot"), inner):
            each.create()
        # What a sprite makes its pilot do is limited, too; but with little time nothing would start.
        cpus = max(spec.limits.cpus, 1.0) if spec.limits.cpus else 0.0
        group.child("pilot").limit(memory_bytes=PILOT_MEMORY, cpus=cpus, pids=PILOT_PIDS)
        self._limit(box, spec.limits)
        inner.delegate(spec.first_id)
        faults.point("start:cgroups")
        # The sprite's root must be able to walk through to its own root directory, so no 0700.
        run_dir.mkdir(parents=True, exist_ok=True)
        run_dir.chmod(0o711)
        Path(spec.spool_dir).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write_spec(spec)

    def _limit(self, box: Group, limits: Limits) -> None:
        # The box's limits count; the same on the inner group shows them to programs that look.
        for limited in (box, box.child("inner")):
            limited.limit(memory_bytes=limits.memory_mb << 20, cpus=limits.cpus, pids=limits.pids)

    def _write_spec(self, spec: SpriteSpec) -> None:
        new = self._run_dir(spec.sprite_id) / ".spec.json"
        new.touch(mode=0o600)
        new.write_text(spec.to_json())
        new.rename(new.with_name("spec.json"))

    async def _fork(self, run_dir: Path, layers: Iterable[str], netns: int) -> None:
        """Have a pilot started and wait until it says that it serves."""
        async with _pipe() as (report, writer):
            try:
                pid = await self._zygote.fork(run_dir / "spec.json", layers, netns, writer)
            finally:
                os.close(writer)
            faults.point("start:forked")
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    line = await report.readline()
            except TimeoutError as error:
                raise Broken(f"The pilot said nothing for {START_TIMEOUT_S:.0f} s.") from error
        message = json.loads(line) if line else {"error": "it ended without a word"}
        if "error" in message:
            log = _tail(run_dir / "pilot.log")
            kind = DamagedDisk if message.get("disk") else Broken
            raise kind(
                f"The sprite could not be started: {message['error']}.",
                hint=f"Its pilot's log ends with: {log}",
            )
        faults.point("start:reported")
        # Only now: a pilot that is named here serves. One that a server dies over ends by itself, or
        # is replaced as a dead one is.
        process.write_down(run_dir / "pilot", pid)

    def _clear(self, sprite_id: str) -> None:
        """Kill what is left and wait until the kernel has let go of everything."""
        group = self._group(sprite_id)
        spec = self.spec(sprite_id)
        group.kill()
        faults.point("stop:killed")
        if spec is not None:
            _wait_until_detached(_images(spec))
        faults.point("stop:detached")
        group.remove()
        faults.point("stop:cgroups")
        if spec is not None:
            shutil.rmtree(Path(spec.containers_dir) / sprite_id, ignore_errors=True)
            # Sessions end with their pilot, and nobody else reads their output.
            shutil.rmtree(spec.spool_dir, ignore_errors=True)
        shutil.rmtree(self._run_dir(sprite_id), ignore_errors=True)
        faults.point("stop:files")

    async def _end_gently(self, sprite_id: str, grace: float) -> None:
        """Ask the user's processes to end, and wait; of those that stand still none could."""
        state, box = self.state(sprite_id), self._group(sprite_id).child("box")
        if state is State.RETIRED and len(box.pids()) > INITS and not box.frozen():
            await self.revive(sprite_id)  # it retired while they stood still
            state = State.RUNNING
        if state is State.RUNNING:
            await self.stop_inner(sprite_id, grace=grace)
            faults.point("stop:inner")

    async def _call(
        self, sprite_id: str, target: str, *, timeout: float, method: str = "POST", body: bytes = b""
    ) -> bytes:
        """Ask the pilot to do something; raises ``Broken`` with its words, or at once if it dies."""
        pid = self._pilot_pid(sprite_id)
        if pid is None:
            raise Broken(f"The pilot of {sprite_id} is dead.")
        question = ask(self.pilot_socket(sprite_id), method, target, body, limit=MAX_ANSWER)
        asking = asyncio.create_task(question)
        # The keeper holds the socket open, so a connection to a dead pilot would only be quiet.
        dying = asyncio.create_task(process.ended(pid))
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait((asking, dying), return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    raise OSError("it died")
                status, answer = await asking
        except (OSError, TimeoutError) as error:
            raise Broken(
                f"The pilot of {sprite_id} does not answer: {error or type(error).__name__}."
            ) from error
        finally:
            for task in (asking, dying):
                task.cancel()
            await asyncio.gather(asking, dying, return_exceptions=True)
        if status >= 300:
            raise Broken(_words(answer) or f"The pilot of {sprite_id} answered {status}.")
        return answer


def _words(answer: bytes) -> str:
    """What a pilot says went wrong; nothing if it failed over the request itself, as one that ends may."""
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return ""


def _images(spec: SpriteSpec) -> list[Path]:
    """The disk, and the checkpoints that may be looked at inside."""
    checkpoints = Path(spec.checkpoints_dir).glob("*/disk.img") if spec.checkpoints_dir else []
    return [Path(spec.disk), *checkpoints]


def _wait_until_detached(images: list[Path]) -> None:
    """Wait until no loop device shows one of ``images``: the last mount is gone and everything is written."""
    backing = {loop.backing_id(image): image for image in images if image.exists()}
    deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
    while used := [device.backing for device in loop.attached() if device.backing in backing]:
        if time.monotonic() > deadline:
            raise Broken(
                f"{backing[used[0]]} is still in use {UNMOUNT_TIMEOUT_S:.0f} s after its sprite was stopped."
            )
        time.sleep(0.002)


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A pipe: a stream to read from, and a descriptor to write to that the caller closes."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb")
    )
    try:
        yield reader, write_fd
    finally:
        transport.close()


def _tail(log: Path) -> str:
    try:
        return log.read_text(errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        return "nothing"
