"""Record a guest at work until its power is cut, and look at what its disk could hold afterwards."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import guest
import guest_base
import guest_root
import promises
import write_log

from spriggan.image.command import Runner

KERNEL = "6.12"
PATIENCE_S = 1800.0  # between two reports
SIZE = "16G"  # of the data's disk, sparse
PYTHON = f"{guest_base.VENV}/bin/python"
INSIDE = "/checkout/tests/hosts/inside"


@dataclass(frozen=True)
class Recording:
    """A disk as it was at first, the log of all that was written to it, and what was reported meanwhile."""

    disk: Path
    log: Path
    entries: list[write_log.Entry]
    reports: list[promises.Report]

    def count(self, size: int) -> int:
        """How many entries lay in the first ``size`` bytes of the log."""
        ends = (
            entry.data + (entry.sectors * write_log.SECTOR if entry.is_write else 0) for entry in self.entries
        )
        return sum(end <= size for end in ends)


class Listener:
    """Takes the guest's reports, stamps them, and says «go on» where that is waited for."""

    def __init__(self, path: Path, log: Path) -> None:
        self.reports: list[promises.Report] = []
        self._changed = threading.Condition()
        self._log = log
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def wait_for(self, what: str, count: int) -> None:
        """Wait for so many reports of a kind. A job that failed fails the test, and so does silence."""
        with self._changed:
            while sum(report.facts["say"] == what for report in self.reports) < count:
                assert self._changed.wait(PATIENCE_S), f"no {what} after {self.reports[-5:]}"
                assert self.reports[-1].facts["say"] != "failed", self.reports[-1].facts

    def close(self) -> None:
        """After the guest's end."""
        self._thread.join(30)
        self._socket.close()

    def _listen(self) -> None:
        pending = b""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            pending += data
            *lines, pending = pending.split(b"\n")
            for line in lines:
                facts = json.loads(line)
                report = promises.Report(facts, write_log.flushed(self._log), self._log.stat().st_size)
                with self._changed:
                    self.reports.append(report)
                    self._changed.notify_all()
                if facts["say"] == "begin":
                    self._socket.sendall(b"\n")


def record(directory: Path, points: list[str], changes: int) -> Recording:
    """Have a guest die at fault points, then be busy, and kill it in the middle of that, after so many changes."""
    directory.mkdir()
    disk, work, log, reports = (directory / name for name in ("disk", "work", "log", "reports"))
    guest_base.format_disk(disk, SIZE, Runner(directory / "format.log", {}))
    _copy(disk, work)
    log.touch()
    options = [
        # The files' own caches may be lazy (the host stays up); the guest's flushes must reach the log.
        *("-blockdev", f"driver=file,node-name=workfile,filename={work},cache.no-flush=on"),
        *("-blockdev", f"driver=file,node-name=logfile,filename={log},cache.no-flush=on"),
        *("-blockdev", "driver=raw,node-name=raw,file=workfile,cache.no-flush=on"),
        *("-blockdev", "driver=blklogwrites,node-name=data,file=raw,log=logfile,log-sector-size=512"),
        # blklogwrites adds to a request's parts; merged ones would have more than the host's kernel takes.
        *("-device", "virtio-blk-pci,drive=data,request-merging=off"),
        *("-chardev", f"socket,id=reports,path={reports},server=on,wait=off"),
        *("-device", "virtserialport,chardev=reports,name=reports"),
    ]
    with guest.guest(directory, KERNEL, *options) as machine:
        listener = Listener(reports, log)
        machine.run("mkdir -p /srv/data && mount /dev/vdc /srv/data && mkdir /srv/data/data")
        machine.run(
            "systemd-run --unit=workload -p StandardOutput=tty -p StandardError=tty -p TTYPath=/dev/ttyS0 "
            f"-E SPRIGGAN_IMAGE_CACHE={guest_root.IMAGES} "
            f"{PYTHON} {INSIDE}/workload.py /srv/data/data {' '.join(points)}"
        )
        listener.wait_for("busy", 1)
        listener.wait_for("done", changes + 6 * len(points))
        machine.kill()
        listener.close()
    failed = [report.facts for report in listener.reports if report.facts["say"] == "failed"]
    assert not failed, failed
    return Recording(disk, log, write_log.entries(log), listener.reports)


def after(recording: Recording, cut: int, image: Path, chance: random.Random) -> None:
    """Make ``image`` a disk as it may be if the power went when the log had ``cut`` entries."""
    _copy(recording.disk, image)
    complete = write_log.flushed(recording.log)
    sure, maybe = write_log.cut(recording.entries, cut, complete=complete)
    write_log.replay(recording.log, image, sure, maybe, chance)


def inventories(directory: Path, images: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What servers find on these disks, by their names: some in each of two guests, one after the other."""
    names = list(images)
    shares = [names[0::2], names[1::2]]
    works = [
        partial(_take_inventories, directory / f"look{n}", {name: images[name] for name in share})
        for n, share in enumerate(shares)
    ]
    return {name: found for done in guest.side_by_side(works) for name, found in done.result().items()}


def _take_inventories(directory: Path, images: dict[str, Path]) -> dict[str, dict[str, Any]]:
    directory.mkdir()
    options = [option for n, image in enumerate(images.values()) for option in guest.disk(image, f"after{n}")]
    found = {}
    with guest.guest(directory, KERNEL, *options) as machine:
        for number, name in enumerate(images):
            look = f"{PYTHON} {INSIDE}/inventory.py /dev/vd{chr(ord('c') + number)}"
            found[name] = json.loads(machine.run(look, timeout=600))
    return found


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", source, target], check=True)
