"""Boot an ordinary kernel in QEMU, as far as it gets without a root file system."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from enum import IntEnum
from pathlib import Path

BOOT = Path("/boot")
_PROGRAMS = ("qemu-system-x86_64", "qemu-kvm", "/usr/libexec/qemu-kvm")

_COMMAND_LINE = "console=ttyS0 earlyprintk=serial,ttyS0 panic=-1"
_FIRST_WORDS = b"Linux version "
# The kernel has started all its parts and looks for a root. With panic=-1 it then resets the machine.
_LAST_WORDS = b"Unable to mount root fs"
_KEPT = 65536  # bytes of output in which to look for words


class Reached(IntEnum):
    """How far a kernel came."""

    NOTHING = 0
    STARTED = 1
    BOOTED = 2


def qemu() -> str | None:
    """The QEMU of this machine."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def kernel(directory: Path = BOOT) -> Path | None:
    """The newest kernel of the distribution that can be read."""
    found = [path for path in directory.glob("vmlinuz-*") if os.access(path, os.R_OK)]
    return max(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)], default=None)


def boot(program: str, image: Path, *, accelerator: str, cpu: str, patience: float) -> Reached:
    """Boot ``image`` and return how far it came within ``patience`` seconds. Nothing of it stays."""
    command = [program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    command += ["-accel", accelerator, "-cpu", cpu, "-m", "256", "-serial", "stdio"]
    command += ["-kernel", os.fspath(image), "-append", _COMMAND_LINE]
    deadline = time.monotonic() + patience
    running = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    reached, output = Reached.NOTHING, b""
    try:
        assert running.stdout is not None  # noqa: S101  a pipe was asked for
        fd = running.stdout.fileno()
        while reached < Reached.BOOTED and (left := deadline - time.monotonic()) > 0:
            if not select.select([fd], [], [], left)[0]:
                break
            if not (more := os.read(fd, _KEPT)):
                break
            output = (output + more)[-_KEPT:]
            if _FIRST_WORDS in output:
                reached = max(reached, Reached.STARTED)
            if _LAST_WORDS in output:
                reached = Reached.BOOTED
    finally:
        running.kill()
        running.communicate()
    return reached
