"""A check: one capability, how to find out about it, and what it costs to be without."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spriggan.doctor.finding import Finding, failed, missing, works
from spriggan.errors import SprigganError


@dataclass(frozen=True)
class Place:
    """Where a check works."""

    data: Path  # the data directory; may not exist
    cgroup: str  # a control group of the check's own, removed afterwards; not made yet
    scratch: Path  # a directory in memory, empty, of this check alone; only a private check has one


@dataclass(frozen=True)
class Check:
    """A check. ``work`` returns a finding, or a text for what works.

    A private one runs in mount and pid namespaces of its own and is a real try: an ``OSError`` or
    ``SprigganError`` from it is the answer that the capability is missing, not a failure to find out.
    """

    name: str
    title: str
    work: Callable[[Place], Finding | str]
    costs: str  # to be without it
    fix: str = ""
    essential: bool = False
    private: bool = False
    limit: float = 30.0  # seconds: a slow machine may load modules for the first time

    def run(self, place: Place) -> Finding:
        """Find out; nothing that goes wrong is raised."""
        try:
            found = self.work(place)
        except (OSError, SprigganError) as error:
            if not self.private:
                return failed(words(error))
            hint = error.hint if isinstance(error, SprigganError) else ""
            return missing(words(error), costs=self.costs, fix=hint or self.fix)
        except Exception as error:
            return failed(f"{type(error).__name__}: {error}")
        return works(found) if isinstance(found, str) else found


def words(error: OSError | SprigganError) -> str:
    """What an error says to people."""
    if not isinstance(error, OSError) or not error.strerror:
        return re.sub(r"\[Errno \d+\] ", "", str(error)) or repr(error)
    return f"{error.strerror}: {error.filename}" if error.filename else error.strerror


def existing(path: Path) -> Path:
    """``path``, or the nearest directory above it that exists."""
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def install(package: str) -> str:
    """How to get a package of Debian's name on this machine."""
    if shutil.which("apt-get"):
        return f"apt-get install {package}"
    return f"install {package} (Debian's name) with this system's package manager"
