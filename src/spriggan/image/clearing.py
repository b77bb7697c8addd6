"""Deletes what a build or an import worked in."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from spriggan.errors import Broken
from spriggan.linux import mount


def remove_tree(path: Path) -> None:
    """Delete a build's directory, once its processes are really gone."""
    real = os.path.realpath(path)
    inside = [m for m in mount.mount_points() if m == real or m.startswith(f"{real}/")]
    if inside:
        raise Broken(f"{inside[0]} is still mounted", hint=f"Unmount it: umount {inside[0]}")
    for last in (False, False, True):
        try:
            shutil.rmtree(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            # Processes that were just killed may still write their last file.
            if last:
                raise
            time.sleep(0.3)
