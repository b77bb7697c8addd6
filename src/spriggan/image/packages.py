"""The Debian and Ubuntu packages that a host of sprites needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

from spriggan.errors import Broken, MissingCapability

# What each is for, so that nobody has to guess whether it may go.
PACKAGES = {
    "btrfs-progs": "the pool",
    "ca-certificates": "downloads over TLS",
    "crun": "starts the sprites' containers",
    "e2fsprogs": "formats and checks disks",
    "erofs-utils": "packs the layers of images",
    "golang-github-containers-common": "the seccomp profile of containers",
    "mmdebstrap": "builds the image",
    "nftables": "keeps sprites away from the host and its network",
    "tini": "the first process of a sprite",
}


def missing() -> list[str]:
    """Packages of the list that are not installed here."""
    _require_debian()
    query = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,  # it fails when it knows nothing of one of them
    )
    installed = {line.split()[0] for line in query.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in PACKAGES if package not in installed]


def install(progress: Callable[[str], None]) -> list[str]:
    """Install what is missing, and say so; returns what was installed."""
    wanted = missing()
    if not wanted:
        progress("all needed packages are installed")
        return []
    if os.geteuid() != 0:
        raise MissingCapability(f"installing {', '.join(wanted)} needs root", hint="Run: sudo spriggan setup")
    for package in wanted:
        progress(f"needs {package}: {PACKAGES[package]}")
    progress("fetching the package lists")
    _apt_get("update")
    progress(f"installing {' '.join(wanted)}")
    _apt_get("install", "--no-install-recommends", *wanted)
    still = missing()
    if still:
        raise Broken(f"apt-get ended well, and yet these are not installed: {', '.join(still)}")
    return wanted


def _apt_get(*arguments: str) -> None:
    done = subprocess.run(
        # A fresh cloud machine is often busy with its own first upgrade.
        ["apt-get", "--yes", "-q", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-10:])
        raise Broken(
            f"apt-get {arguments[0]} failed with exit code {done.returncode}:\n{tail}",
            hint=f"Try it by hand: apt-get {' '.join(arguments)}",
        )


def _require_debian() -> None:
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        raise MissingCapability(
            "this host has no apt",
            hint="Spriggan sets itself up on Debian and Ubuntu. Elsewhere install yourself: "
            + ", ".join(PACKAGES),
        )
