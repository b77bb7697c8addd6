"""The system calls that a sprite may make.

The list itself is the host's ``/usr/share/containers/seccomp.json``, Docker's default profile
as the containers project maintains it (https://github.com/containers/common, Apache-2.0); it
names capabilities under which a call is allowed. Here it becomes what the OCI runtime
specification wants for the capabilities of a sprite, without the calls (and, see ``arguments``,
the arguments) that would lift a sprite above what its walls allow.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from pathlib import Path
from typing import Any

from spriggan.pilot.inner import arguments

PROFILE = Path("/usr/share/containers/seccomp.json")

# Allowed by the profile to holders of CAP_SYS_ADMIN, but they reach kernel interfaces that know
# nothing of user namespaces or have been the way out of them; nested containers need none.
WITHHELD = {"bpf", "perf_event_open", "fanotify_init", "quotactl", "lookup_dcookie", "kcmp"}
# What the profile leaves out although programs use it and the kernel checks it per namespace.
GRANTED = {"keyctl", "add_key", "request_key", "move_pages", "migrate_pages", "vmsplice", "io_pgetevents"}

_ARCHITECTURES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}


def profile(capabilities: Collection[str], source: Path = PROFILE) -> dict[str, Any]:
    """Return the ``linux.seccomp`` object for a process that may hold ``capabilities``.

    Raises ``OSError`` if the host has no profile.
    """
    data = json.loads(source.read_text())
    main, short = _ARCHITECTURES[platform.machine()]
    architectures = [main]
    for entry in data["archMap"]:
        if entry["architecture"] == main:
            architectures += entry["subArchitectures"] or []
    rules: list[dict[str, Any]] = []
    for rule in data["syscalls"]:
        if not _applies(rule, capabilities, short):
            continue
        names = [name for name in rule["names"] if name not in WITHHELD | GRANTED | arguments.NAMES]
        if names:
            rules.append(_rule(rule, names))
    rules += arguments.rules()
    rules.append({"names": sorted(GRANTED), "action": "SCMP_ACT_ALLOW"})
    rules.append({"names": sorted(WITHHELD), "action": "SCMP_ACT_ERRNO", "errnoRet": 1})
    return {
        "defaultAction": data["defaultAction"],
        "defaultErrnoRet": data.get("defaultErrnoRet", 38),
        "architectures": architectures,
        "syscalls": rules,
    }


def _applies(rule: dict[str, Any], capabilities: Collection[str], architecture: str) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if any(cap not in capabilities for cap in includes.get("caps", [])):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if any(cap in capabilities for cap in excludes.get("caps", [])):
        return False
    return architecture not in excludes.get("arches", [])


def _rule(rule: dict[str, Any], names: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"names": names, "action": rule["action"]}
    if rule.get("errnoRet") is not None and rule["action"] == "SCMP_ACT_ERRNO":
        result["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        result["args"] = rule["args"]
    return result
