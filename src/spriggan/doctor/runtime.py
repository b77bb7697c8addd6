"""The container runtime: crun, or runc where there is none, really running a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spriggan.doctor import users
from spriggan.doctor.check import Place, install
from spriggan.doctor.finding import Finding, limited
from spriggan.errors import MissingCapability
from spriggan.linux import namespaces, process
from spriggan.linux.cgroup import Group, hierarchies
from spriggan.linux.mount import MNT_DETACH, mount, umount
from spriggan.net import addresses

_TINI = "tini-static"
_PROFILE = Path("/usr/share/containers/seccomp.json")
_WORD = "tini version"  # what the program in the container says


def container(place: Place) -> Finding | str:
    """A container with ids, network and system calls of its own, in which tini says its version."""
    program, tini = _programs()
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    name = version.stdout.partition("\n")[0] or Path(program).name
    said = place.scratch / "said"
    with _bundle(place, tini) as bundle:
        process.in_child(lambda: _run(program, place, bundle, said))
    if not said.read_text(errors="replace").startswith(_WORD):
        raise OSError(f"{name} ran a container, but what ran in it said {said.read_text(errors='replace')!r}")
    if Path(program).name == "runc":
        return limited(
            f"{name} ran a container, but there is no crun",
            costs="starts and commands take longer",
            fix=install("crun"),
        )
    return f"{name} ran a container"


def _programs() -> tuple[str, str]:
    """The runtime, and the program for the container. Raises ``MissingCapability``."""
    program, tini = shutil.which("crun") or shutil.which("runc"), shutil.which(_TINI)
    if program is None:
        raise MissingCapability("neither crun nor runc is installed", hint=install("crun"))
    if tini is None:
        raise MissingCapability(f"{_TINI} is not installed", hint=install("tini"))
    if not _PROFILE.exists():
        raise MissingCapability(
            f"there is no list of system calls in {_PROFILE}", hint=install("golang-github-containers-common")
        )
    return program, tini


@contextmanager
def _bundle(place: Place, tini: str) -> Iterator[Path]:
    """A bundle: a root with nothing but tini, and the configuration."""
    first_id = addresses.first_id(0)
    root = place.scratch / "rootfs"
    for name in ("", "proc", "sys", "dev"):
        (root / name).mkdir()
        os.chown(root / name, first_id, first_id)
    shutil.copy(tini, root / "tini")
    (root / "tini").chmod(0o755)
    with users.namespace(namespaces.CLONE_NEWNET) as pid:
        config = _configuration(root, pid, first_id, place.cgroup)
        (place.scratch / "config.json").write_text(json.dumps(config))
        yield place.scratch


def _run(program: str, place: Place, bundle: Path, said: Path) -> None:
    """Run the container, in the foreground. Called in a child, whose mounts and cgroup are its own."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    host = hierarchies()
    if host.kind == "hybrid" and host.unified:
        umount(host.unified, MNT_DETACH)  # as the pilot does: crun refuses a mix
    elif host.kind == "v2" and host.unified:
        _confine(Group(place.cgroup, host), host.unified)
    log = place.scratch / "log"
    with said.open("w") as output:
        done = subprocess.run(
            [program, "--root", place.scratch / "state", "--log", log, "run", "--bundle", bundle, "doctor"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode:
        words = [
            *(log.read_text(errors="replace") if log.exists() else "").splitlines(),
            *done.stderr.splitlines(),
        ]
        reason = words[-1] if words else f"exit code {done.returncode}"
        raise OSError(f"{Path(program).name} could not run a container: {reason}")


def _confine(group: Group, root: Path) -> None:
    """Make ``group`` the root of all that this process sees of cgroups.

    A runtime enables version 2's controllers in every group above the container's. Those of the
    machine are not to be changed by a try.
    """
    directory = root / group.path.strip("/")
    (directory / "self").mkdir(parents=True)
    group.add(os.getpid())
    namespaces.unshare(namespaces.CLONE_NEWCGROUP)
    group.child("self").add(os.getpid())  # a group with controllers below it may hold no process
    umount(root, MNT_DETACH)
    mount("cgroup", root, "cgroup2")


def _configuration(root: Path, pid: int, first_id: int, cgroup: str) -> dict[str, Any]:
    """config.json with what makes the difference for a sprite: namespaces to join, seccomp, devices, cgroups."""
    id_map = [{"containerID": 0, "hostID": first_id, "size": namespaces.ID_COUNT}]
    capabilities = ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root)},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/tini", "--version"],
            "env": ["PATH=/"],
            "cwd": "/",
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
        ],
        "linux": {
            "namespaces": [
                {"type": "user", "path": f"/proc/{pid}/ns/user"},
                {"type": "network", "path": f"/proc/{pid}/ns/net"},
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")),
            ],
            "uidMappings": id_map,
            "gidMappings": id_map,
            "cgroupsPath": f"{cgroup}/box",
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ERRNO"}],
            },
        },
    }
