"""How much an archive may hold, so that a small file cannot fill a disk or keep a machine busy."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from spriggan.errors import InvalidValue, NoSpace

# Nobody may fill the file system that the pool lies on (see spriggan.disk.guard): the same share stays free.
_KEPT_SHARE, _KEPT_LEAST = 20, 2 << 30
_LOOK_EVERY = 64 << 20
# Names, link targets and attributes are kept in memory. Those of large images take 20 MiB.
_DESCRIPTIONS = 256 << 20
# Tiny archives of zeros compress well and harm nobody.
_RATIO_FREE = 64 << 20


@dataclass(frozen=True)
class Limits:
    """What one image may hold at most."""

    entries: int = 1_000_000  # of all its layers
    bytes: int = 64 * 10**9  # uncompressed
    ratio: int = 200  # uncompressed bytes for each compressed one; real images have 2 to 10


class Budget:
    """What is left of the limits while an image is read. Every method raises ``InvalidValue`` at the end."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.entries = 0
        self.bytes = 0
        self._descriptions = 0

    def entry(self) -> None:
        """One more entry, or a directory that an entry needs and that has none of its own."""
        self.entries += 1
        if self.entries > self._limits.entries:
            raise InvalidValue(
                f"the image holds more than {self._limits.entries} entries",
                hint="--max-entries N allows more, if you trust it",
            )

    def describe(self, count: int) -> None:
        """An entry's name, target and attributes have ``count`` bytes."""
        self._descriptions += count
        if self._descriptions > _DESCRIPTIONS:
            raise InvalidValue(
                f"the names, link targets and attributes in the image have more than {_DESCRIPTIONS >> 20} MiB",
                hint="no image needs so many; this archive is made to fill memory",
            )

    def spend(self, count: int) -> None:
        """``count`` bytes were read."""
        self.afford(count)
        self.bytes += count

    def afford(self, count: int) -> None:
        """Whether ``count`` more bytes may be read: asked before a large file is begun."""
        if self.bytes + count > self._limits.bytes:
            raise InvalidValue(
                f"the image is larger than {self._limits.bytes / 1e9:.1f} GB",
                hint="--max-size GB allows more, if you trust it",
            )

    def check_ratio(self, compressed: int, plain: int) -> None:
        """``plain`` bytes have come out of ``compressed`` so far."""
        if plain > _RATIO_FREE and plain > compressed * self._limits.ratio:
            raise InvalidValue(
                f"{compressed} compressed bytes became {plain}, more than {self._limits.ratio} times as many",
                hint="this is what a decompression bomb looks like; --max-ratio N allows more, if you trust it",
            )


class Room:
    """The free space below a directory, looked at again and again while it is written to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unseen = 0

    def take(self, count: int) -> None:
        """``count`` bytes are about to be written. Raises ``NoSpace`` before space gets short."""
        self._unseen += count
        if self._unseen >= _LOOK_EVERY:
            self.need(self._unseen)
            self._unseen = 0

    def need(self, count: int) -> None:
        """Raise ``NoSpace`` unless ``count`` bytes fit and the reserve stays free."""
        usage = shutil.disk_usage(self._directory)
        kept = max(usage.total // _KEPT_SHARE, _KEPT_LEAST)
        if usage.free - count < kept:
            raise NoSpace(
                f"importing needs {count >> 20} MiB more, {usage.free >> 20} MiB are free and "
                f"{kept >> 20} MiB of them are kept in reserve",
                hint=f"free space on the file system of {self._directory}",
            )
