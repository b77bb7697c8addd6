"""Disks of sprites: ext4 images in a copy-on-write pool, cloned in constant time."""

from spriggan.disk.guard import Pressure, Reserve
from spriggan.disk.pool import Pool
from spriggan.disk.usage import Usage

__all__ = ["Pool", "Pressure", "Reserve", "Usage"]
