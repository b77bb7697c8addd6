"""A process with a mount namespace of its own does not keep the pool in use."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from spriggan.disk.pool import Pool
from spriggan.linux import loop


def test_a_private_copy_of_the_mount_is_unmounted_too() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        pool = Pool(Path(directory))
        pool.open()
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            try:
                pool.close()
                assert not loop.find(pool.image)
            finally:
                holder.kill()
