"""The OCI runtime configuration of a sprite's inner container.

Written for https://github.com/opencontainers/runtime-spec (1.0), as crun and runc read it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spriggan.linux.namespaces import ID_COUNT
from spriggan.pilot import keepalive
from spriggan.pilot.inner import arguments, belongings, seccomp
from spriggan.pilot.inner.root import Assembled
from spriggan.wire.spec import SpriteSpec

INIT = ["/.pilot/tini", "--", "tail", "-f", "/dev/null"]
# Where the sprite's root has no tail: of an image that came without, or because it was deleted.
INIT_OF_OURS = ["/.pilot/tini", "--", f"/.pilot/{keepalive.NAME}"]
PATH = "/.sprite/bin:/home/sprite/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Of every process in a sprite.
RLIMITS = [arguments.CORE_LIMIT]

# Of the user namespace, so most reach nothing of the host; the missing ones act on the whole
# machine or open kernel interfaces that are not namespaced: SYS_MODULE, SYS_RAWIO, SYS_TIME,
# SYS_BOOT, SYSLOG, MAC_*, AUDIT_CONTROL, WAKE_ALARM, BPF, PERFMON.
CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_CHROOT SYS_PTRACE "
        "SYS_PACCT SYS_ADMIN SYS_NICE SYS_RESOURCE SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_READ "
        "SETFCAP BLOCK_SUSPEND CHECKPOINT_RESTORE"
    ).split()
]

# Of the privileges policy; the others leave all. The standard set is Docker's default.
_PROFILES = {
    "minimal": [],
    "standard": [
        f"CAP_{name}"
        for name in (
            "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW "
            "SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP"
        ).split()
    ],
}

# Directories of the disk that are mounted straight from it, so that nested containers do not
# put an overlay on an overlay.
FROM_DISK = {
    "tmp": "/tmp",
    "docker": "/var/lib/docker",
    "containers": "/var/lib/containers",
    "logs": "/.sprite/logs",
}

# A nested user namespace (rootless podman) may mount proc and sysfs only where an instance with
# nothing mounted over it exists already (mount_too_revealing() in the kernel's fs/namespace.c). The
# masks on those that users see would forbid it, so there are two more, below a mask of their own.
UNMASKED = "/.pilot/kernel"

# What tells about the host rather than about the sprite: block devices and swap files, how it was
# started, firmware, kernel memory and keys.
MASKED = [
    UNMASKED,
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/swaps",
    "/proc/cmdline",
    "/proc/acpi",
    "/sys/block",
    "/sys/class/block",
    "/sys/dev/block",
    "/sys/devices/virtual/block",
    "/sys/devices/virtual/dmi",
    "/sys/class/dmi",
    "/sys/firmware",
    "/sys/fs/btrfs",
    "/sys/fs/ext4",
    "/sys/fs/erofs",
    "/sys/fs/xfs",
]

_PRIVATE = ["nosuid", "noexec", "nodev"]
_DEVICES = [("/dev/fuse", 10, 229), ("/dev/net/tun", 10, 200)]


def _devices(privileges: dict[str, Any]) -> list[tuple[str, int, int]]:
    """The devices of a container: with a profile that restricts, only those that the policy names."""
    if privileges.get("profile", "") not in _PROFILES:
        return _DEVICES
    return [device for device in _DEVICES if device[0] in privileges.get("devices", [])]


def configuration(
    spec: SpriteSpec,
    assembled: Assembled,
    privileges: dict[str, Any],
    *,
    staging: Path,
    shown: Path,
    init: list[str],
    userns: str,
    netns: str,
) -> dict[str, Any]:
    """Return ``config.json``. ``privileges`` is the policy; ``staging`` holds the sprite's ``belongings``;
    ``shown`` is what the sprite sees as /.pilot, ``init`` its first process; ``userns`` and ``netns`` are
    paths of the namespaces to join.
    """
    id_map = [{"containerID": 0, "hostID": spec.first_id, "size": ID_COUNT}]
    return {
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": str(assembled.root), "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": init,
            "env": [f"PATH={PATH}", "HOME=/root"],
            "cwd": "/",
            "capabilities": capability_sets(),
            "noNewPrivileges": False,
            "rlimits": RLIMITS,
        },
        "mounts": [*_system_mounts(), *_disk_mounts(assembled.disk), *_pilot_mounts(staging, shown)],
        "linux": {
            "namespaces": [
                {"type": "user", "path": userns},
                {"type": "network", "path": netns},
                {"type": "pid"},
                {"type": "mount"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "cgroup"},
            ],
            "uidMappings": id_map,
            "gidMappings": id_map,
            "cgroupsPath": f"{spec.cgroup}/box/inner",
            "resources": {"devices": _device_rules(_devices(privileges))},
            "devices": [
                {
                    "path": path,
                    "type": "c",
                    "major": major,
                    "minor": minor,
                    "fileMode": 0o666,
                    "uid": 0,
                    "gid": 0,
                }
                for path, major, minor in _devices(privileges)
                if Path(path).exists()
            ],
            "seccomp": seccomp.profile(CAPABILITIES),
            "maskedPaths": MASKED,
            "readonlyPaths": [],
        },
    }


def capability_sets(capabilities: list[str] = CAPABILITIES) -> dict[str, list[str]]:
    """``capabilities`` in the sets that let root have them and sudo give them."""
    return {
        "bounding": capabilities,
        "effective": capabilities,
        "permitted": capabilities,
        "inheritable": [],
        "ambient": [],
    }


def allowed_capabilities(privileges: dict[str, Any]) -> list[str]:
    """What the commands of a sprite with this policy may have."""
    return _PROFILES.get(privileges.get("profile", ""), CAPABILITIES)


def _system_mounts() -> list[dict[str, Any]]:
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _PRIVATE},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "nodev", "mode=1777"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _PRIVATE},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": _PRIVATE},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*_PRIVATE, "rw"]},
        {
            "destination": "/run",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=755"],
        },
    ]


def _disk_mounts(disk: Path) -> list[dict[str, Any]]:
    return [
        {
            "destination": target,
            "type": "bind",
            "source": str(disk / name),
            "options": ["bind", "rw", "nodev"],
        }
        for name, target in FROM_DISK.items()
    ]


def _pilot_mounts(staging: Path, shown: Path) -> list[dict[str, Any]]:
    read_only = ["bind", "ro", "nosuid", "nodev"]
    ours = {
        "/.pilot": (shown, read_only),
        "/.sprite/bin/sprite-env": (shown / "sprite-env", read_only),
        "/.sprite/llm.txt": (shown / "llm.txt", read_only),
        "/.sprite/version.txt": (shown / "version.txt", read_only),
        "/.sprite/policy": (staging / belongings.POLICY, read_only),
        "/.sprite/checkpoints": (staging / belongings.CHECKPOINTS, read_only),
        "/.sprite/api.sock": (staging / belongings.SOCKET, ["bind", "rw", "nosuid", "nodev"]),
    }
    return [
        *(
            {"destination": target, "type": "bind", "source": str(source), "options": options}
            for target, (source, options) in ours.items()
        ),
        {"destination": f"{UNMASKED}/proc", "type": "proc", "source": "proc", "options": _PRIVATE},
        {"destination": f"{UNMASKED}/sys", "type": "sysfs", "source": "sysfs", "options": _PRIVATE},
    ]


def _device_rules(devices: list[tuple[str, int, int]]) -> list[dict[str, Any]]:
    allowed = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None)]
    allowed += [(major, minor) for _, major, minor in devices]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for major, minor in allowed:
        rule: dict[str, Any] = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    return rules
