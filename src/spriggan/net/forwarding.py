"""Forwarding: switched on for as long as an instance needs it, then as it was before.

What is changed is noted under /run first (gone at reboot, as the settings are).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SYSCTL = Path("/proc/sys/net")
_IPV6_ROUTES = Path("/proc/thread-self/net/ipv6_route")
_RTF_ADDRCONF = 0x00040000  # a route that the kernel took from a router advertisement


@contextmanager
def locked(runtime: Path) -> Iterator[None]:
    """Keep the other instances of the host out while forwarding changes."""
    runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    fd = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def switch_on(runtime: Path) -> None:
    """Forward IPv4 and IPv6. Called with ``locked`` held; what was noted before is kept."""
    wanted = _wanted()
    notes = _notes(runtime)
    before = {
        name: value
        for name in [*wanted, *_overwritten()]
        if name not in notes and (value := _read(name)) is not None
    }
    changed = {name: value for name, value in before.items() if name in wanted and value != wanted[name]}
    if changed:
        # Switching "all" sets every interface; those that differed are noted to be put back.
        changed |= {name: value for name, value in before.items() if name not in wanted}
    if changed:
        _write_notes(runtime, notes | changed)
    for name, value in wanted.items():
        if _read(name) != value:
            _write(name, value)


def put_back(runtime: Path) -> None:
    """Undo ``switch_on``. Called with ``locked`` held, when no instance needs it any more."""
    for name, value in _notes(runtime).items():
        _write(name, value)
    _file(runtime).unlink(missing_ok=True)


def _wanted() -> dict[str, str]:
    wanted = {}
    # A host that forwards ignores router advertisements unless told otherwise, and would
    # lose the very route that its sprites are to use. This comes before forwarding.
    for interface in _interfaces_with_advertised_routes():
        name = f"ipv6/conf/{interface}/accept_ra"
        if _read(name) == "1":
            wanted[name] = "2"
    wanted["ipv4/ip_forward"] = "1"
    if (SYSCTL / "ipv6/conf/all/forwarding").exists():
        wanted["ipv6/conf/all/forwarding"] = "1"
    return wanted


def _overwritten() -> list[str]:
    """The settings of single interfaces that are on; switching "all" off again would lose them."""
    names = []
    for family in ("ipv4", "ipv6"):
        for path in sorted((SYSCTL / family / "conf").glob("*/forwarding")):
            name = str(path.relative_to(SYSCTL))
            if path.parent.name != "all" and _read(name) == "1":
                names.append(name)
    return names


def _interfaces_with_advertised_routes() -> set[str]:
    try:
        lines = _IPV6_ROUTES.read_text().splitlines()
    except FileNotFoundError:
        return set()
    fields = [line.split() for line in lines]
    return {f[9] for f in fields if f[0] == "0" * 32 and f[1] == "00" and int(f[8], 16) & _RTF_ADDRCONF}


def _read(name: str) -> str | None:
    """A setting; None if it is that of an interface that has gone meanwhile, as those of sprites do."""
    try:
        return (SYSCTL / name).read_text().strip()
    except FileNotFoundError:
        return None


def _write(name: str, value: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # an interface that is gone
        (SYSCTL / name).write_text(value)


def _file(runtime: Path) -> Path:
    return runtime / "forwarding.json"


def _notes(runtime: Path) -> dict[str, str]:
    try:
        notes: dict[str, str] = json.loads(_file(runtime).read_text())
    except FileNotFoundError:
        return {}
    return notes


def _write_notes(runtime: Path, notes: dict[str, str]) -> None:
    new = _file(runtime).with_suffix(".new")
    new.write_text(json.dumps(notes, indent=1))
    new.replace(_file(runtime))
