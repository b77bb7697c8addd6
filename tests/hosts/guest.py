"""A whole machine under QEMU, in software, so that it needs nothing of the host but a program."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import guest_base
import guest_root
import pytest

import serving

T = TypeVar("T")

QEMU = "qemu-system-x86_64"
_PROGRAMS = {
    QEMU: "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "cpio": "cpio",
    "depmod": "kmod",
    "mmdebstrap": "mmdebstrap",
    "setpriv": "util-linux",
}
BOOT_PATIENCE_S = 1800.0
SLOWNESS = 20.0  # how many seconds one of a guest's may last, on a host that does much else
# One processor, and a nanosecond a machine instruction: the guest's clock goes with its work, so that
# nothing in it runs into a time limit because the host is slow or busy.
_PACE = ("-accel", "tcg,thread=single", "-smp", "1", "-icount", "shift=0,sleep=on")
# All that Debian asks for, and the few instructions that spare a kernel much. More of them cost software
# much: with every feature that QEMU knows, a boot takes 1.3 of the time and Python twice. No SVM:
# QEMU stands still when a guest tries KVM on it.
_CPU = "qemu64,-svm,+fsgsbase,+rdrand"

_running: set[Guest] = set()


@dataclass(frozen=True)
class Done:
    """How a script in the guest ended."""

    code: int
    output: str


class Guest:
    """One machine. ``directory`` is its own; ``options`` go to QEMU (``disk`` makes some)."""

    def __init__(
        self, directory: Path, kernel: guest_base.Kernel, options: Sequence[str], append: str = ""
    ) -> None:
        self.console = directory / "console"
        self._socket_path = directory / "control"
        self._command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),  # no machine outlives the tests
            *(QEMU, "-M", "q35", *_PACE, "-cpu", _CPU, "-m", "3072"),
            *("-nodefaults", "-display", "none", "-kernel", str(kernel.image), "-initrd", str(kernel.initrd)),
            *("-append", f"console=ttyS0 quiet systemd.show_status=0 mitigations=off panic=-1 {append}"),
            *("-serial", f"file:{self.console}"),
            *("-device", "virtio-serial", "-device", "virtserialport,chardev=control,name=control"),
            *("-chardev", f"socket,id=control,path={self._socket_path},server=on,wait=off"),
            *("-nic", "user,model=virtio-net-pci"),
            *options,
        ]
        self._errors = directory / "qemu.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pending = b""
        self._messages: deque[dict[str, object]] = deque()
        self._number = 0

    def start(self) -> None:
        """Switch it on and wait until it answers."""
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
            )
        _running.add(self)
        deadline = time.monotonic() + 30
        self._socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self._socket.connect(str(self._socket_path))
                break
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"QEMU does not start: {self._errors.read_text()}") from None
                time.sleep(0.05)
        self.wait_booted()

    def wait_booted(self) -> None:
        """Wait for the word of an agent that has just started."""
        deadline = time.monotonic() + BOOT_PATIENCE_S
        while "boot" not in self._read(deadline):
            pass

    def run(self, script: str, *, timeout: float = 300) -> str:
        """Run a shell script as root; return what it printed. Fails if the script does."""
        done = self.attempt(script, timeout=timeout)
        assert done.code == 0, f"{script!r} ended with {done.code} in the guest:\n{done.output}"
        return done.output.strip()

    def attempt(self, script: str, *, timeout: float = 300) -> Done:
        """Run a shell script as root, whatever becomes of it. ``timeout`` is in seconds of the guest."""
        number = self._send(script, timeout)
        deadline = time.monotonic() + timeout * SLOWNESS
        while True:
            message = self._read(deadline)
            if message.get("id") == number:
                return Done(int(str(message["code"])), str(message["output"]))

    def reboot(self) -> None:
        """The orderly way, by systemd, and wait until it is there again."""
        self._send("systemctl reboot", 600)
        self.wait_booted()

    def kill(self) -> None:
        """What a power cut is for the guest."""
        _running.discard(self)
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        if self._socket is not None:
            self._socket.close()

    def _send(self, script: str, timeout: float) -> int:
        assert self._socket is not None
        self._number += 1
        request = {"id": self._number, "script": script, "timeout": timeout}
        self._socket.settimeout(60)
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        return self._number

    def _read(self, deadline: float) -> dict[str, object]:
        """The next message; fails, with the console's last lines, when there is none in time."""
        assert self._socket is not None
        while not self._messages:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                data = b""
            if not data:
                tail = self.console.read_text(errors="replace")[-2000:] if self.console.exists() else ""
                raise AssertionError(f"the guest says nothing: {self._errors.read_text()}\n{tail}")
            self._pending += data
            *lines, self._pending = self._pending.split(b"\n")
            self._messages.extend(json.loads(line) for line in lines)
        return self._messages.popleft()


def side_by_side(works: Sequence[Callable[[], T]]) -> list[Future[T]]:
    """What became of each, all done at once. An interrupt ends all guests, and so whoever waits for one."""
    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work) for work in works]
        try:
            wait(futures)
        except BaseException:
            while wait(futures, timeout=0.2).not_done:
                for machine in list(_running):
                    machine.kill()
            raise
    return futures


def require() -> None:
    """Skip, by name, where guests cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (apt-get install {package})")
    release = platform.freedesktop_os_release()
    if (release["ID"], release.get("VERSION_CODENAME"), platform.machine()) != (
        "debian",
        "bookworm",
        "x86_64",
    ):
        pytest.skip("needs a Debian 12 host on x86-64, whose mirrors have the kernels 6.1 and 6.12")
    if not (serving.IMAGE_CACHE / "refs" / "sprites.json").exists():
        pytest.skip(f"needs the default image in {serving.IMAGE_CACHE} (spriggan image build)")


def disk(image: Path, node: str, *, read_only: bool = False, overlay: Path | None = None) -> list[str]:
    """QEMU's options for a raw image as the next virtio disk.

    With ``overlay``, a file that is made here, the image stays as it is and the guest writes there.
    Nothing is flushed to the host's disk: these machines are thrown away.
    """
    driver, file = "raw", image
    if overlay is not None:
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(image), str(overlay)]
        subprocess.run(command, check=True)
        driver, file = "qcow2", overlay
    options = f"file={file},format={driver},if=none,id={node},cache=unsafe"
    return [
        "-drive",
        options + (",readonly=on" if read_only else ""),
        "-device",
        f"virtio-blk-pci,drive={node}",
    ]


@contextmanager
def guest(directory: Path, kernel: str, *options: str, append: str = "") -> Iterator[Guest]:
    """A booted guest with the root and the images, gone at the end."""
    require()
    known = guest_base.base().kernels
    disks = [
        *disk(guest_root.root(), "root", overlay=directory / "root.qcow2"),
        *disk(guest_root.images(), "images", read_only=True),
    ]
    machine = Guest(directory, known[kernel], [*disks, *options], append)
    try:
        machine.start()
        yield machine
    finally:
        machine.kill()
