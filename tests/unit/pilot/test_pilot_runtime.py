"""What a command shows of itself before it is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from spriggan.pilot.inner.runtime import NAMES, is_starting


def test_a_process_that_is_the_runtime_still() -> None:
    sleep = shutil.which("sleep")
    assert sleep
    for name in (*NAMES, "another"):
        program = os.memfd_create(name)
        try:
            os.write(program, Path(sleep).read_bytes())
            reopened = os.open(f"/proc/self/fd/{program}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(program)
        try:
            with subprocess.Popen(
                ["sleep", "60"], executable=f"/proc/{os.getpid()}/fd/{reopened}"
            ) as process:
                assert is_starting(process.pid) is (name in NAMES)
                process.kill()
        finally:
            os.close(reopened)
    with subprocess.Popen([sleep, "60"]) as process:
        assert not is_starting(process.pid)
        process.kill()
