"""What the crash tests share: a server whose processes stop at a fault point, and sprites with much to lose."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

import holdings
import serving
from serving import until

T = TypeVar("T")

PATIENCE_S = 60.0
LATE_S = 10.0  # the work is done, and whoever has a part in it may still come to the point
SOURCE = "source"

# 10,000 files and their checksums. Small ones: what is at stake here is files, not bytes.
PLANT = """
mkdir tree && cd tree && python3 - <<'.'
import hashlib, os, random
chance = random.Random(1)
with open("../SUMS", "w") as sums:
    for number in range(10000):
        if number % 100 == 0:
            os.mkdir(f"{number // 100:02}")
        name, data = f"{number // 100:02}/{number % 100:02}", chance.randbytes(chance.randrange(2500))
        with open(name, "wb") as file:
            file.write(data)
        sums.write(f"{hashlib.sha256(data).hexdigest()}  {name}\\n")
.
split -n l/8 ../SUMS ../SUMS. && test $(cat ../SUMS.* | wc -l) = 10000
cd .. && echo planted > synced && cp synced loose
"""

# Side by side, because a disk just mounted is read file by file.
VERIFY = "cd tree && ls ../SUMS.* | xargs -n 1 -P 8 sha256sum -c --quiet && cd .."

# Something that runs all the time, in the background of no session.
LIVES = "pgrep -xf 'sleep 42424' > /dev/null"
START_LIFE = (
    f"{LIVES} || {{ setsid sleep 42424 < /dev/null > /dev/null 2>&1 & until {LIVES}; do sleep 0.01; done; }}"
)
COUNT_LIFE = "pgrep -xfc 'sleep 42424' || true"

# On a disk that takes no writes this fails, or waits until it is ended.
PROBE = "timeout 20 sh -c 'echo probe > probe && sync probe && rm probe'"


@dataclass(frozen=True)
class Answer:
    """What a client was told: ``ok`` is None if its connection broke."""

    ok: bool | None
    text: str


class Bench:
    """One data directory, its server, and the fault that its processes are told of."""

    def __init__(self, server: serving.Server, spares: int = 0) -> None:
        self.server = server
        self._spares = spares  # with any, points are passed that nobody asked for
        self.log = ""  # what the server that was started last said until it was ready
        self._file = server.data / "fault"
        self._threads = ThreadPoolExecutor(4)
        self._http: httpx.Client | None = None
        self._rest: holdings.Held = {}

    def start(self, *options: str) -> None:
        self.server.start("--spares", str(self._spares), *options, SPRIGGAN_FAULT=f"@{self._file}")
        for mark in self._marks():  # of faults that nobody waited for
            mark.unlink()
        self.log = self.server.log.read_text()

    def restart(self, *options: str) -> None:
        """Kill the server, if it lives, and start another."""
        self.server.kill()
        self.start(*options)

    def ready(self) -> None:
        """After a row that failed: a server that runs, and no process that stands still."""
        self.disarm()
        if not self.server.alive:
            self.start()

    def disarm(self) -> None:
        """Let no process stand still, now or later."""
        self._file.unlink(missing_ok=True)
        for pid in holdings.processes(self.server):
            if holdings.state(pid) == "T":
                os.kill(pid, signal.SIGKILL)

    def prepare(self) -> None:
        """Start, make the source of all other sprites, and see what is held while all of them are cold."""
        self.start()
        source = self.server.client().create_sprite(SOURCE)
        serving.run(source, PLANT)
        serving.finished(source.create_checkpoint("the tree"))
        self.stop_all()
        self._rest = holdings.held(self.server)
        self._rest["intents"] = []

    # What clients do.

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask, and read the whole answer; of a stream, the last line decides."""
        try:
            answer = self._client().request(method, f"/v1/sprites{path}", json=body)
        except httpx.TransportError as error:
            return Answer(None, repr(error))
        if "ndjson" in answer.headers.get("content-type", ""):
            last = json.loads(answer.text.strip().splitlines()[-1])
            return Answer(last["type"] == "complete", answer.text)
        if "/exec?" in path and answer.is_success:
            # The last two bytes are the stream of exit codes and one of them.
            return Answer(answer.content[-2:] == b"\3\0", answer.text)
        return Answer(answer.is_success, answer.text)

    def _client(self) -> httpx.Client:
        if self._http is None:  # to make one takes longer than what it is asked for
            self._http = self.server.http()
        return self._http

    def must(self, method: str, path: str, body: Any = None) -> None:
        answer = self.request(method, path, body)
        assert answer.ok, answer

    def get(self, path: str) -> Any:
        """What is there, or None."""
        answer = self._client().get(f"/v1/sprites{path}")
        assert answer.status_code in (200, 404), answer.text
        return answer.json() if answer.status_code == 200 else None

    def checkpoints(self, name: str) -> list[str]:
        listed = self.get(f"/{name}/checkpoints?includeAuto=true")
        return [each["id"] for each in listed if each["id"] != "Current"]

    def fork(self, name: str, *, of: str = SOURCE, checkpoint: str | None = "v1") -> None:
        self.must("POST", f"/{of}/fork", {"name": name} | ({"checkpoint": checkpoint} if checkpoint else {}))

    def run(self, name: str, script: str) -> str:
        return serving.run(self.server.client().sprite(name), script)

    def write(self, name: str, state: str) -> None:
        """Have bytes acknowledged, in one file that is synced and one that is not; something runs from now on."""
        self.run(name, f"echo {state} > synced && sync synced && echo {state} > loose\n{START_LIFE}")

    def read(self, name: str, *, whole: bool = True, patient: bool = False) -> str:
        """What ``write`` wrote last. All of the tree is there, and the disk takes writes.

        ``patient``: a sprite whose container has just ended may refuse until that is noticed.
        """
        synced, loose = self.look(name, "cat synced loose", whole=whole, patient=patient).splitlines()
        assert synced == loose
        return synced

    def look(self, name: str, script: str, *, whole: bool = True, patient: bool = False) -> str:
        """The output of a script, in a sprite that is as ``read`` says."""
        if patient:
            until(lambda: self.request("POST", f"/{name}/exec?cmd=true").ok, what=f"{name} to be back")
        return self.run(name, f"{script} && {PROBE}" + (f" && {VERIFY}" if whole else ""))

    def lives(self, name: str) -> bool:
        """Whether what ``write`` started still runs."""
        return self.run(name, COUNT_LIFE) == "1"

    def stop_all(self) -> None:
        for sprite in self.get("")["sprites"]:
            self.must("POST", f"/{sprite['name']}/stop")

    # Faults.

    def strike(
        self,
        point: str,
        victim: str,
        name: str,
        work: Callable[[], Answer],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Answer:
        """Do ``work``, kill ``victim`` while a process stands still at ``point``, let that go on.

        Victims: the ``server``, the ``zygote``; of the sprite ``name`` its ``pilot`` and the ``init`` of
        its container; whoever is at the point ``itself``. Several are joined by ``+``; with ``restart``
        another server is started as well, while that process still stands there. ``meanwhile`` is done
        last. What a server that died could not answer is an answer that broke.
        """
        self.arm(point, stop=victim != "itself")
        asked = self.beside(work)
        there = self._reached(point, asked)
        for each in victim.split("+"):
            if each == "restart":
                self.start()
            elif each != "itself":  # which has killed itself
                self._kill(each, name, wait=point != "rest:frozen")
        meanwhile()
        with contextlib.suppress(ProcessLookupError):
            os.kill(there, signal.SIGCONT)
        return asked.result(PATIENCE_S)

    def kill(self, role: str, name: str) -> None:
        """SIGKILL to the zygote, or to a sprite's pilot or container's init."""
        self._kill(role, name)

    def kill_if_there(self, role: str, name: str) -> None:
        """The same, at this very moment."""
        for pid in self.pids_of(role, name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def beside(self, work: Callable[[], T]) -> Future[T]:
        """Do ``work`` beside the test."""
        return self._threads.submit(work)

    def arm(self, point: str, *, stop: bool = False) -> None:
        """Let the first process that passes ``point`` stand still there, or kill itself."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{point} stop\n" if stop else f"{point}\n")
        draft.rename(self._file)

    def _reached(self, point: str, asked: Future[Answer]) -> int:
        """The pid of whoever has come to ``point``, and stands still there or is dead."""

        late = 0.0

        def found() -> list[Path]:
            nonlocal late
            if not asked.done():
                late = time.monotonic() + LATE_S
            marks = list(self._marks())
            assert marks or time.monotonic() < late, f"{point} was not passed: {asked.result()}"
            return marks

        [mark] = until(found, PATIENCE_S, what=f"somebody to pass {point}")
        mark.unlink()
        pid = int(mark.suffix[1:])
        until(lambda: holdings.state(pid) in "TZX", what=f"process {pid} to stand still at {point}")
        return pid

    def _marks(self) -> list[Path]:
        return list(self._file.parent.glob(f"{self._file.name}.[0-9]*"))

    def _kill(self, victim: str, name: str, *, wait: bool = True) -> None:
        if victim == "server":
            self.server.kill()
            return
        pids = until(lambda: self.pids_of(victim, name), what=f"{victim} to be there")
        assert len(pids) == 1, (victim, pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids if wait else []:  # what is frozen does not even die
            until(lambda pid=pid: holdings.state(pid) in "ZX", what=f"{victim} to die")

    def pids_of(self, role: str, name: str) -> list[int]:
        """The zygote, or a sprite's pilot or container's init; also while the server stands still."""
        pids = holdings.processes(self.server)
        if role == "zygote":
            return [pid for pid in pids if holdings.is_zygote(self.server, pid)]
        if role == "pilot":
            return [pid for pid in pids if holdings.comm(pid) == f"pilot:{name}"[:15]]
        identity = self._identity(name)
        return [
            pid
            for pid in pids
            if holdings.comm(pid) == "tini" and identity and holdings.within(identity, pid)
        ]

    def _identity(self, name: str) -> str:
        for spec in Path(f"/run/spriggan/{self.server.instance}").glob("*/spec.json"):
            with contextlib.suppress(OSError, ValueError):
                if json.loads(spec.read_text())["name"] == name:
                    return spec.parent.name
        return ""

    # What is left.

    def held(self) -> holdings.Held:
        return holdings.held(self.server)

    def nothing_left(self, before: holdings.Held | None = None) -> None:
        """Require that no more is held than ``before`` (or by cold sprites), and all of the pool is known.

        The other way round, every disk and checkpoint that the API names is in the pool.
        """
        if before is None:
            self.stop_all()
        holdings.wait_for_spares(self.server)
        known = []
        for sprite in self.get("")["sprites"]:
            known.append(f"disks/{sprite['id']}")
            known += [f"checkpoints/{sprite['id']}/{each}" for each in self.checkpoints(sprite["name"])]
        known += [f"disks/{spare}" for spare in holdings.spares(self.server)]
        known += [
            path
            for path in holdings.pool(self.server.data)
            if path.startswith("blanks/") and "draft" not in path
        ]
        expected = (before or self._rest) | {"pool": holdings.nameless(self.server, known)}
        holdings.require_no_more(self.server, expected)
        assert holdings.pool(self.server.data) == sorted(known)
