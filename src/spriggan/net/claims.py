"""Which slots are whose: instances on one host divide the slots among themselves.

An instance claims whole blocks, each by a file under /run that every instance of the
host can see; inside its blocks it hands out slots alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spriggan.errors import Conflict, Unavailable
from spriggan.net import addresses

RUNTIME = Path("/run/spriggan")
SUBORDINATE_IDS = (Path("/etc/subuid"), Path("/etc/subgid"))


@dataclass(frozen=True)
class _Claim:
    instance: str
    data: str


class Claims:
    """The slots of one instance. ``is_free`` has the last word on a slot: what the host uses is skipped."""

    def __init__(
        self,
        instance: str,
        data: Path,
        *,
        runtime: Path = RUNTIME,
        is_free: Callable[[int], bool] = lambda slot: True,
        subordinate_ids: tuple[Path, ...] = SUBORDINATE_IDS,
    ) -> None:
        self._instance = instance
        self._data = data
        self._folder = runtime / "claims"
        self._is_free = is_free
        self._subordinate_ids = subordinate_ids
        self._mutex = threading.Lock()
        self._blocks: list[int] = []
        self._taken: set[int] = set()
        self._last = -1

    @property
    def blocks(self) -> list[int]:
        """The claimed blocks, in order."""
        return sorted(self._blocks)

    def acquire(self) -> None:
        """Find the blocks claimed before, or claim a first one. Idempotent.

        Raises ``Conflict`` if another data directory uses this instance's id.
        """
        with self._mutex, self._locked():
            self._blocks = [block for block in range(addresses.BLOCKS) if self._is_mine(block)]
            if not self._blocks:
                self._claim_one()

    def take(self, used: Collection[int]) -> int:
        """Return a slot that is neither in ``used`` nor taken, and take it.

        The one after the last comes first, so that what is left of an ended sprite has time to go.
        """
        with self._mutex:
            ids = list(subordinate_ranges(self._subordinate_ids))
            slot = self._next(used, ids)
            if slot is None:
                with self._locked():
                    self._claim_one()
                slot = self._next(used, ids)
            if slot is None:
                raise Unavailable(
                    "every slot of a freshly claimed block is in use on this host",
                    hint="look at /etc/subuid, /etc/subgid and the routes of 169.254.0.0/16",
                )
            self._taken.add(slot)
            self._last = slot
            return slot

    def release(self, slot: int) -> None:
        """Give ``slot`` back; nothing happens if it was not taken."""
        with self._mutex:
            self._taken.discard(slot)

    def release_all(self) -> None:
        """Give every block back. For when nothing of the instance runs any more."""
        with self._mutex, self._locked():
            for block in range(addresses.BLOCKS):
                if self._is_mine(block):
                    self._path(block).unlink()
            self._blocks = []
            self._taken = set()

    def _next(self, used: Collection[int], ids: list[range]) -> int | None:
        slots = [
            slot
            for block in sorted(self._blocks)
            for slot in range(block * addresses.BLOCK, (block + 1) * addresses.BLOCK)
        ]
        slots.sort(key=lambda slot: slot <= self._last)  # stable: those after the last one first
        for slot in slots:
            if slot in used or slot in self._taken or addresses.is_reserved(slot):
                continue
            if not _overlaps(slot, ids) and self._is_free(slot):
                return slot
        return None

    def _claim_one(self) -> None:
        """Claim the lowest block that nobody holds. The caller holds the lock."""
        for block in range(addresses.BLOCKS):
            holder = self._holder(block)
            if holder is not None:
                continue
            path = self._path(block)
            path.unlink(missing_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with os.fdopen(fd, "w") as file:
                json.dump({"instance": self._instance, "data": str(self._data.resolve())}, file)
            self._blocks.append(block)
            return
        raise Unavailable(
            f"all {addresses.BLOCKS} blocks of slots are claimed by other data directories",
            hint=f"see {self._folder}; `spriggan down` in a data directory gives its blocks back",
        )

    def _is_mine(self, block: int) -> bool:
        holder = self._holder(block)
        if holder is None or holder.instance != self._instance:
            return False
        if not _same_directory(Path(holder.data), self._data):
            raise Conflict(
                f"{self._data} and {holder.data} have the same instance id {self._instance}",
                hint="one is a copy of the other: use only one, or delete instance.json in the copy",
            )
        return True

    def _holder(self, block: int) -> _Claim | None:
        """Who holds ``block``; None for nobody, or somebody whose data directory is gone."""
        try:
            fields = json.loads(self._path(block).read_text())
            claim = _Claim(str(fields["instance"]), str(fields["data"]))
            owner = json.loads((Path(claim.data) / "instance.json").read_text())
            return claim if owner["id"] == claim.instance else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            return None  # half written by someone who died: the lock says that nobody writes now

    def _path(self, block: int) -> Path:
        return self._folder / str(block)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def _same_directory(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _overlaps(slot: int, ranges: list[range]) -> bool:
    first = addresses.first_id(slot)
    return any(first < ids.stop and ids.start < first + addresses.ID_COUNT for ids in ranges)


def subordinate_ranges(files: tuple[Path, ...] = SUBORDINATE_IDS) -> Iterator[range]:
    """The ranges given away in /etc/subuid and /etc/subgid: ``name:first:count`` lines."""
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            with contextlib.suppress(ValueError):
                _, first, count = line.strip().split(":")
                yield range(int(first), int(first) + int(count))
