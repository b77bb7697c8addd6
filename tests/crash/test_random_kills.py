"""Random changes of three sprites, and a random victim killed at a random moment, round after round.

Each sprite has a client of its own that notes what was acknowledged, and what may have happened: a
change whose answer never came may be done or not. After every round the sprites must be in a state that
the notes allow. ``SPRIGGAN_CRASH_ROUNDS`` and ``SPRIGGAN_CRASH_SEED`` choose how many, and which.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from crashing import SOURCE, Answer, Bench

import serving

ROUNDS = int(os.environ.get("SPRIGGAN_CRASH_ROUNDS", "15"))
SEED = int(os.environ.get("SPRIGGAN_CRASH_SEED", "20261125"))
STATE = "synced"  # the file that a client writes; it begins as "planted"
NAMES = ("one", "two", "three")
VICTIMS = ("server", "server", "pilot", "init", "zygote")


@dataclass
class Notes:
    """What is known of one sprite. ``states`` are those that its file may hold."""

    exists: bool | None = True  # None: nobody knows
    states: set[str] = field(default_factory=lambda: {"planted"})
    checkpoints: dict[str, set[str]] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)  # checkpoints that may be deleted
    made: list[set[str]] = field(default_factory=list)  # and states of those that may have been made
    fork: set[str] | None = None  # states of a fork that may be there


class Client:
    """Makes changes of one sprite, one after the other, until told to stop."""

    def __init__(self, bench: Bench, name: str, chance: random.Random) -> None:
        self.bench = bench
        self.name = name
        self.notes = Notes()
        self.log: list[str] = []
        self._chance = chance
        self._number = 0
        self._stop = threading.Event()

    def run(self) -> None:
        """Change after change; the last is the one whose answer did not come."""
        self._stop.clear()
        changes = [self.write, self.write, self.write, self.checkpoint, self.restore, self.fork]
        changes += [self.delete_checkpoint, self.stop, self.destroy]
        while not self._stop.is_set():
            change = self._chance.choice(changes) if self.notes.exists else self.create
            answer = change()
            if answer is not None:
                self.log.append(f"{change.__name__}: {answer.ok} {answer.text[-200:]}")
                if answer.ok is None:
                    return

    def stop_soon(self) -> None:
        self._stop.set()

    def write(self) -> Answer:
        self._number += 1
        state = f"{self.name}-{self._number}"
        sync = self._chance.choice(["", "sync new && "])  # no process's death is a matter of that
        script = f"echo {state} > new && {sync}mv new {STATE}"
        try:
            done = self.bench.server.client().sprite(self.name).run("sh", "-c", script, capture_output=True)
            answer = Answer(True if done.returncode == 0 else None, f"{state} {done.returncode}")
        except Exception as error:  # the official client has a kind for every way to fail
            answer = Answer(None, f"{state} {error!r}")
        self.notes.states = {state} if answer.ok else self.notes.states | {state}
        return Answer(False, answer.text) if answer.ok is None and self.bench.server.alive else answer

    def checkpoint(self) -> Answer:
        answer = self._ask("POST", "/checkpoint")
        if answer.ok:
            [made] = re.findall(r"ID: (v\d+)", answer.text)
            self.notes.checkpoints[made] = set(self.notes.states)
        elif answer.ok is None:
            self.notes.made.append(set(self.notes.states))
        return answer

    def restore(self) -> Answer | None:
        if not self.notes.checkpoints:
            return None
        chosen = self._chance.choice(sorted(self.notes.checkpoints))
        answer = self._ask("POST", f"/checkpoints/{chosen}/restore")
        restored = self.notes.checkpoints[chosen]
        if answer.ok:
            self.notes.states = set(restored)
        elif answer.ok is None:
            self.notes.states |= restored
        return answer

    def delete_checkpoint(self) -> Answer | None:
        if len(self.notes.checkpoints) < 2:
            return None
        chosen = self._chance.choice(sorted(self.notes.checkpoints))
        answer = self._ask("DELETE", f"/checkpoints/{chosen}")
        if answer.ok:
            del self.notes.checkpoints[chosen]
        elif answer.ok is None:
            self.notes.unsure.add(chosen)
        return answer

    def fork(self) -> Answer:
        answer = self._ask("POST", "/fork", {"name": f"{self.name}-f"})
        if answer.ok is not False:
            self.notes.fork = set(self.notes.states)
        if not answer.ok:
            return answer
        answer = self.bench.request("DELETE", f"/{self.name}-f")
        if answer.ok:
            self.notes.fork = None
        return answer

    def stop(self) -> Answer:
        return self._ask("POST", "/stop")

    def destroy(self) -> Answer:
        answer = self._ask("DELETE", "")
        if answer.ok:
            self.notes = Notes(exists=False, fork=self.notes.fork)
        elif answer.ok is None:
            self.notes.exists = None
        return answer

    def create(self) -> Answer:
        answer = self.bench.request("POST", f"/{SOURCE}/fork", {"name": self.name, "checkpoint": "v1"})
        if answer.ok is not False:
            self.notes = Notes(exists=answer.ok, fork=self.notes.fork)
        return answer

    def compare(self) -> None:
        """The sprite is as the notes allow; from here on they say which it was."""
        notes, bench = self.notes, self.bench
        there = bench.get(f"/{self.name}") is not None
        assert notes.exists in (there, None)
        if notes.fork is not None and bench.get(f"/{self.name}-f") is not None:
            assert self._state(f"{self.name}-f") in notes.fork
            bench.must("DELETE", f"/{self.name}-f")
        if not there:
            self.notes = Notes(exists=False)
            return
        found = self._state(self.name, whole=self._chance.random() < 0.3)
        assert found in notes.states
        listed = [each for each in bench.checkpoints(self.name) if each.startswith("v")]
        new = [each for each in listed if each not in notes.checkpoints]
        assert len(new) <= len(notes.made)
        assert set(notes.checkpoints) - set(listed) <= notes.unsure
        known = {each: states for each, states in notes.checkpoints.items() if each in listed}
        known |= {each: notes.made[-1] for each in new}
        for each in self._chance.sample(sorted(known), min(1, len(known))):
            bench.fork("look", of=self.name, checkpoint=each)
            assert self._state("look") in known[each]
            bench.must("DELETE", "/look")
        self.notes = Notes(states={found}, checkpoints=known)

    def _state(self, name: str, *, whole: bool = False) -> str:
        """What a sprite's file holds."""
        return self.bench.look(name, f"cat {STATE}", whole=whole, patient=True)

    def _ask(self, method: str, path: str, body: Any = None) -> Answer:
        return self.bench.request(method, f"/{self.name}{path}", body)


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with serving.server() as server:
        made = Bench(server)
        made.prepare()
        yield made


@pytest.mark.slow
def test_random_kills(bench: Bench) -> None:
    chance = random.Random(SEED)
    clients = [Client(bench, name, random.Random(f"{SEED} {name}")) for name in NAMES]
    for client in clients:
        bench.fork(client.name)
    for number in range(ROUNDS):
        for client in clients:
            client.log.clear()
        victim, name, moment = chance.choice(VICTIMS), chance.choice(NAMES), chance.uniform(0, 1.5)
        try:
            play(bench, clients, victim, name, moment)
            bench.restart()
            for client in clients:
                client.compare()
            if number % 5 == 4 or number == ROUNDS - 1:
                bench.nothing_left()
        except BaseException as error:
            story = [f"round {number}, seed {SEED}: {victim} of {name} after {moment:.2f} s"]
            story += [f"{client.name}: {line}" for client in clients for line in client.log]
            raise AssertionError("\n".join([*story, bench.log])) from error


def play(bench: Bench, clients: list[Client], victim: str, name: str, moment: float) -> None:
    """Let the clients work; kill the victim after ``moment`` seconds; let them come to an end."""
    with ThreadPoolExecutor(len(clients)) as beside:
        working = [beside.submit(client.run) for client in clients]
        time.sleep(moment)
        if victim == "server":
            bench.server.kill()
        else:
            bench.kill_if_there(victim, name)
            time.sleep(moment / 2)  # and see what the server makes of it
        for client in clients:
            client.stop_soon()
        for work in working:
            work.result()
