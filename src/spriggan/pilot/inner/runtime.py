"""The OCI runtime that runs the inner containers: crun, or runc where there is none."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT_S = 30.0

# From include/uapi/linux/fcntl.h; a runtime takes its own program for safe with exactly these.
F_ADD_SEALS = 1033
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE


NAMES = ("crun", "runc")


def is_starting(pid: int) -> bool:
    """Whether a process is the runtime still, on its way to the program that it is to become.

    Until then its command line is ours, and names what is the host's. Raises ``OSError`` if it has ended.
    """
    return str(Path(f"/proc/{pid}/exe").readlink()) in [f"/memfd:{name} (deleted)" for name in NAMES]


@dataclass(frozen=True)
class Runtime:
    """A sealed copy of the runtime's program in memory.

    A runtime that joins a container first makes a read-only copy of itself and starts that, or the
    container could write to the host's program by way of /proc/<pid>/exe (CVE-2019-5736). From a file
    that nobody can write to it goes on at once, which saves a mount and an unmount for each command.
    """

    name: str
    program: int  # the descriptor

    @classmethod
    def load(cls) -> Runtime:
        """Raises ``OSError`` if there is none on this host."""
        path = next(filter(None, map(shutil.which, NAMES)), None)
        if path is None:
            raise OSError("neither crun nor runc is installed; run `spriggan setup`")
        name = Path(path).name
        program = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(path, "rb") as source:
            while os.sendfile(program, source.fileno(), None, 1 << 30):
                continue
        fcntl.fcntl(program, F_ADD_SEALS, SEALS)
        # A program that somebody has open for writing cannot be started.
        reopened = os.open(f"/proc/self/fd/{program}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(program)
        return cls(name, reopened)

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run it and wait; ``options`` are those of ``subprocess.run``. Blocks."""
        return subprocess.run(
            [self.name, *arguments], executable=self._path, check=False, timeout=TIMEOUT_S, **options
        )

    def start(self, arguments: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start it; ``options`` are those of ``subprocess.Popen``."""
        return subprocess.Popen([self.name, *arguments], executable=self._path, **options)

    @property
    def _path(self) -> str:
        """Where a child of this process finds the program."""
        return f"/proc/{os.getpid()}/fd/{self.program}"
