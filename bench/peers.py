"""What Spriggan is held against: podman, and the bare floor under both.

Both run in a thread of their own with a mount and a network namespace of its own, so that podman's
bridge, its rules and its mounts are seen by nobody and go when it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from spriggan.image import erofs
from spriggan.linux import cgroup, namespaces
from spriggan.linux.mount import MNT_DETACH, MS_PRIVATE, MS_RDONLY, MS_REC, mount, mount_points, umount

T = TypeVar("T")

INIT = ["tail", "-f", "/dev/null"]
# What podman asks for by default needs CAP_SYS_RESOURCE, which root in a container may not have.
ULIMITS = ["--ulimit", "nofile=8192:8192", "--ulimit", "nproc=8192:8192"]
# The runtime that serves podman on every host. crun, which is quicker, refuses a mix of cgroup versions.
RUNTIME = "runc"
QUICK_RUNTIME = "crun"
IMAGE = "bench"
# Where both peers keep locks, states and namespaces whatever they are told: nothing of it is to stay.
PRIVATE = ("/run", "/dev/shm", "/var/lib/containers", "/var/lib/cni")


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


class Place:
    """The thread with namespaces of its own, and in them the root file system that both peers run.

    ``layers`` are erofs files, topmost first.
    """

    def __init__(self, directory: Path, layers: list[Path]) -> None:
        self.directory = directory
        self.cgroup = f"/{directory.name}"  # all that the peers start is below it
        self._thread = ThreadPoolExecutor(1, "peers")
        self.run(lambda: self._enter(layers))

    def run(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def command(self, *command: str) -> None:
        """Run a program there; raises with its words."""
        # The output of what goes on in the background would be waited for in a pipe.
        with tempfile.TemporaryFile("w+") as words:
            process = self.start(*command, stdout=subprocess.DEVNULL, stderr=words)
            try:  # not in the thread of the place: several may run at once
                code = process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            if code != 0:
                words.seek(0)
                raise RuntimeError(f"{' '.join(command)}: {words.read().strip()}")

    def start(self, *command: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start a program there, out of reach of a terminal's Ctrl-C; whoever calls waits for it."""
        options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **streams}
        return self.run(lambda: subprocess.Popen(command, **options))

    def close(self) -> None:
        self._thread.shutdown()
        group = cgroup.Group(self.cgroup, cgroup.hierarchies())
        group.kill()
        group.remove()

    def _enter(self, layers: list[Path]) -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
        mount("none", "/", flags=MS_REC | MS_PRIVATE)
        for target in reversed(mount_points()):
            # Or a server that ends meanwhile would find its pool in use, by a copy that it cannot see.
            if not target.startswith(("/proc", "/sys", "/dev", "/run")) and target != "/":
                umount(target, MNT_DETACH)
        host = cgroup.hierarchies()
        if host.kind == "hybrid" and host.unified:
            umount(host.unified, MNT_DETACH)  # crun refuses a mix; alone, version 1 is fine with it
        for private in PRIVATE:
            if Path(private).is_dir():
                mount("tmpfs", private, "tmpfs")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        mounted = []
        for number, layer in enumerate(layers):
            mounted.append(self.directory / f"layer-{number}")
            mounted[-1].mkdir()
            erofs.mount_file(layer, mounted[-1])
        for name in ("image", "upper", "work", "rootfs"):
            (self.directory / name).mkdir()
        lower = f"lowerdir={':'.join(map(str, mounted))}"
        upper = f"upperdir={self.directory}/upper,workdir={self.directory}/work"
        mount("overlay", self.directory / "image", "overlay", MS_RDONLY, lower)
        mount("overlay", self.directory / "rootfs", "overlay", 0, f"{lower},{upper}")


class Floor:
    """The least: ``crun run`` and ``crun exec`` of a plain bundle on an overlay of the same layers.

    No user namespace, no network of its own, no seccomp, no disk image, no server.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        place.command("crun", "spec", "--bundle", str(place.directory))
        file = place.directory / "config.json"
        config = json.loads(file.read_text())
        config["process"] |= {"terminal": False, "args": INIT}
        config["root"]["readonly"] = False
        config["linux"]["cgroupsPath"] = f"{place.cgroup}/floor"
        file.write_text(json.dumps(config))

    def run(self, name: str) -> None:
        """Up to the first command's result."""
        self._crun("run", "--detach", "--bundle", str(self._place.directory), name)
        self.exec(name)

    def exec(self, name: str) -> None:
        self._crun("exec", name, "true")

    def delete(self, name: str) -> None:
        self._crun("delete", "--force", name)

    def close(self) -> None:
        """Remove what a benchmark that failed has left."""
        for state in Path(f"{self._place.directory}/crun").glob("*/status"):
            self.delete(state.parent.name)

    def _crun(self, *arguments: str) -> None:
        self._place.command("crun", "--root", f"{self._place.directory}/crun", *arguments)


class Podman:
    """podman with a store, a network and an image of its own: the content of a sprite's layers."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._base = ["podman", "--cgroup-manager=cgroupfs"]
        for option, name in (
            ("--root", "store"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
            ("--network-config-dir", "net"),
        ):
            self._base += [option, str(place.directory / name)]

    def import_image(self) -> None:
        tar = f"tar -C {self._place.directory}/image -c ."
        self._place.command("sh", "-c", f"{tar} | {' '.join(self._base)} import -q - {IMAGE}")

    def run(self, name: str, runtime: str = RUNTIME) -> None:
        """Up to the first command's result, on a bridge network."""
        self.start(name, runtime)
        self.exec(name)

    def start(self, name: str, runtime: str = RUNTIME) -> None:
        group = f"--cgroup-parent={self._place.cgroup}"
        options = ["--detach", "--network=bridge", "--name", name, group, *ULIMITS]
        self.call("--runtime", runtime, "run", *options, IMAGE, *INIT)

    def exec(self, name: str, *command: str) -> None:
        self.call("exec", name, *(command or ("true",)))

    def commit(self, name: str, image: str) -> None:
        self.call("commit", "--quiet", name, image)

    def remove(self, name: str) -> None:
        self.call("rm", "--force", "--time=0", name)

    def close(self) -> None:
        """Remove the containers. The store goes with the directory; podman would take a minute for it."""
        self.call("rm", "--all", "--force", "--time=0")

    def call(self, *arguments: str) -> None:
        self._place.command(*self._base, *arguments)

    def processes(self, name: str) -> list[int]:
        """The pids of a container's init and of what watches over it."""
        wanted = "{{.State.Pid}} {{.State.ConmonPid}}"
        command = [*self._base, "inspect", "--format", wanted, name]
        with self._place.start(*command, stdout=subprocess.PIPE) as process:
            output, _ = process.communicate()
        return [int(word) for word in output.split()]

    def reading(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """``podman exec`` whose output is in a pipe for the caller to read."""
        return self._place.start(*self._base, "exec", name, *command, stdout=subprocess.PIPE)


def fsync(directory: Path, size: int) -> float:
    """Milliseconds of one fsync of ``size`` dirty bytes on the host's own file system."""
    path = directory / "fsync"
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
        file.flush()
        spent = timed(lambda: os.fsync(file.fileno()))
    path.unlink()
    return spent
