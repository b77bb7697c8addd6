"""Who keeps a file system from being unmounted: mounts in any namespace, loop devices, processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo."""

    target: str
    fstype: str
    source: str


def parse(mountinfo: str) -> list[Mount]:
    """Read the text of a /proc/<pid>/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, (fstype, source) = left.split(" "), right.split(" ")[:2]
        found.append(Mount(_unescape(fields[4]), fstype, _unescape(source)))
    return found


def mounted_at(target: Path) -> Mount | None:
    """Return what is mounted at ``target`` (the topmost) in this mount namespace."""
    wanted = os.path.realpath(target)
    with Path("/proc/self/mountinfo").open(errors="surrogateescape") as file:
        entries = [entry for entry in parse(file.read()) if entry.target == wanted]
    return entries[-1] if entries else None


def of(root: Path, devices: list[str]) -> list[str]:
    """Describe who holds the file system that is, or was, mounted at ``root`` from one of ``devices``."""
    found = list(_loops(os.path.realpath(root)))
    seen = {_namespace("self")}
    for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        namespace = _namespace(pid)
        if pid == os.getpid() or namespace is None:
            continue
        if _has_open(pid, os.path.realpath(root)):
            found.append(_process(pid))
        elif namespace not in seen and _has_mounted(pid, devices):
            found.append(f"the mount namespace of {_process(pid)}")
        seen.add(namespace)
    return found


def _loops(root: str) -> Iterator[str]:
    for path in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            image = path.read_text().strip()
            if image.startswith(root + "/"):
                yield f"{path.parts[3]} ({image})"


def _has_open(pid: int, root: str) -> bool:
    places = [Path(f"/proc/{pid}/{name}") for name in ("cwd", "root", "exe")]
    with contextlib.suppress(OSError):
        places += Path(f"/proc/{pid}/fd").iterdir()
    for place in places:
        with contextlib.suppress(OSError):
            target = os.fspath(place.readlink())
            if target == root or target.startswith(root + "/"):
                return True
    return False


def _has_mounted(pid: int, devices: list[str]) -> bool:
    try:
        text = Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return False
    return any(entry.source in devices for entry in parse(text))


def _namespace(pid: int | str) -> str | None:
    try:
        return os.fspath(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return None


def _process(pid: int) -> str:
    name = "a process"
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return f"{name} (pid {pid})"


def _unescape(field: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
