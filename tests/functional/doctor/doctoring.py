"""``spriggan doctor`` as a process, in the surroundings that a test makes for it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NEEDS = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare (util-linux)"),
]

SPRIGGAN = str(Path(sys.executable).parent / "spriggan")
ESSENTIAL = {
    "root",
    "cgroups",
    "user-namespaces",
    "runtime",
    "overlay",
    "erofs",
    "btrfs",
    "loop",
    "nftables",
    "links",
    "forwarding",
    "file-system",
    "space",
}
OPTIONAL = {
    "firewall",
    "dns",
    "ipv6",
    "memory",
    "image",
    "image-building",
    "nested",
    "subordinate-ids",
    "fuse",
    "tun",
    "kvm",
}


@dataclass(frozen=True)
class Report:
    """What ``--json`` printed, and the exit code."""

    code: int
    facts: dict[str, Any]

    def __getitem__(self, name: str) -> dict[str, Any]:
        return next(check for check in self.facts["checks"] if check["name"] == name)

    @property
    def statuses(self) -> dict[str, str]:
        return {check["name"]: check["status"] for check in self.facts["checks"]}


def examine(*arguments: str, within: str = "", data: Path = Path("/var/tmp"), **environment: str) -> Report:
    """Run ``spriggan doctor --json``. ``within`` is a shell command line that runs its arguments."""
    doctor = [SPRIGGAN, "doctor", "--json", "--data", str(data), *arguments]
    done = subprocess.run(
        [*shlex.split(within), *doctor],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout, done.stderr
    report = Report(done.returncode, json.loads(done.stdout))
    assert report.code == (0 if report.facts["ok"] else 1)
    return report


def shell(script: str, namespaces: str) -> str:
    """What to run ``within``: new ``namespaces`` (options of unshare), in which ``script`` ran before."""
    return shlex.join(["unshare", *namespaces.split(), "sh", "-ec", f'{script}; exec "$@"', "sh"])


def path_without(directory: Path, *programs: str) -> str:
    """A PATH with all that there is on this one, except ``programs``."""
    directory.mkdir()
    for entry in os.environ["PATH"].split(":"):
        if Path(entry).is_dir():
            for program in Path(entry).iterdir():
                link = directory / program.name
                if program.name not in programs and not link.is_symlink():
                    link.symlink_to(program)
    assert not any(shutil.which(program, path=str(directory)) for program in programs)
    return str(directory)
