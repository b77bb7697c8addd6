"""Which sprites write: the ones to pause when space runs out."""

from __future__ import annotations

from pathlib import Path

from spriggan.disk.pool import Pool
from spriggan.linux import cgroup, loop

# Every file system writes a little by itself, and so may those who harm nobody; this is more than that.
NOTICEABLE = 1 << 20
_SECTOR = 512
_WRITTEN = 6  # field of /sys/block/<device>/stat: sectors written


class Writers:
    """Looks at three things, because each alone misses somebody: a disk that grew, bytes
    that reached a disk (old blocks written again take new space after a checkpoint), and
    bytes in memory that are yet to be written.
    """

    def __init__(self, instance: str, pool: Pool) -> None:
        self._instance = instance
        self._pool = pool
        self._sizes: dict[str, int] = {}
        self._written: dict[str, int] = {}

    def calm(self, sprites: list[str]) -> None:
        """There is space enough: whatever was written up to now is nobody's fault."""
        self._sizes = self._pool.allocated()
        self._written = self._count_written(sprites)

    def find(self, sprites: list[str]) -> set[str]:
        """Those of ``sprites`` that have written since ``calm``, or are about to."""
        sizes, written = self._pool.allocated(), self._count_written(sprites)
        for now, before in ((sizes, self._sizes), (written, self._written)):
            for sprite_id, count in now.items():
                before.setdefault(sprite_id, count)  # made or started since: counted from here on
        return {
            sprite_id
            for sprite_id in sprites
            if sizes.get(sprite_id, 0) - self._sizes.get(sprite_id, 0) >= NOTICEABLE
            or written.get(sprite_id, 0) - self._written.get(sprite_id, 0) >= NOTICEABLE
            or self._dirty(sprite_id) >= NOTICEABLE
        }

    def _count_written(self, sprites: list[str]) -> dict[str, int]:
        """Bytes that each sprite's disk has taken, by its loop device."""
        images = {}
        for sprite_id in sprites:
            path = self._pool.disk_path(sprite_id)
            if path.exists():
                images[loop.backing_id(path)] = sprite_id
        found = {}
        for device in loop.attached():
            if device.backing in images and not device.read_only:
                fields = Path(f"/sys/block/{Path(device.path).name}/stat").read_text().split()
                found[images[device.backing]] = int(fields[_WRITTEN]) * _SECTOR
        return found

    def _dirty(self, sprite_id: str) -> int:
        """Bytes in memory, written by the sprite's processes and not on a disk yet."""
        host = cgroup.hierarchies()
        root = host.v1.get("memory", host.unified)
        if root is None:
            return 0
        try:
            text = (root / f"spriggan-{self._instance}/{sprite_id}/box/memory.stat").read_text()
        except OSError:  # stopped meanwhile
            return 0
        fields = dict(line.split() for line in text.splitlines())
        names = ("total_dirty", "total_writeback") if host.v1 else ("file_dirty", "file_writeback")
        return sum(int(fields.get(name, 0)) for name in names)
