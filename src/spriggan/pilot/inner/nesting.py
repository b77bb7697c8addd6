"""What nested containers need from the kernel, beyond the runtime's configuration."""

from __future__ import annotations

import os
from pathlib import Path

from spriggan.linux import namespaces, process
from spriggan.linux.mount import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount

HIDDEN = Path("/.pilot/kernel")
_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC


def allow(init_pid: int) -> None:
    """Mount a proc and a sysfs without masks in the container, where nobody can look.

    A nested user namespace (rootless podman) may mount proc and sysfs only where an instance with
    nothing mounted over it exists already (mount_too_revealing() in the kernel's fs/namespace.c);
    the masks on those that users see would forbid it. crun mounts them at /proc and /sys only, so
    this is done by joining the container afterwards. Raises ``OSError`` if that fails.
    """
    kinds = (
        ("user", namespaces.CLONE_NEWUSER),
        ("pid", namespaces.CLONE_NEWPID),
        ("net", namespaces.CLONE_NEWNET),
        ("mnt", namespaces.CLONE_NEWNS),
    )
    fds = [(namespaces.open_namespace(init_pid, kind), flag) for kind, flag in kinds]

    def join() -> None:
        for fd, flag in fds:
            namespaces.setns(fd, flag)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        process.in_child(_mount)  # only a child is in the pid namespace, and proc shows its mounter's

    try:
        process.in_child(join)
    finally:
        for fd, _ in fds:
            os.close(fd)


def _mount() -> None:
    for name, fstype in (("proc", "proc"), ("sys", "sysfs")):
        target = HIDDEN / name
        target.mkdir(parents=True, exist_ok=True)
        mount(fstype, target, fstype, _FLAGS)
    mount("tmpfs", HIDDEN, "tmpfs", _FLAGS | MS_RDONLY, "mode=000,size=0")
