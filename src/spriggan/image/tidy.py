"""Take out of a finished tree what differs from build to build, or is nobody's business."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

# Deleted as far as the stage made them; what is in a lower layer was tidied there.
_CACHES = (
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "root/.bash_history",
    "usr/sbin/policy-rc.d",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/archives/lock",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/cache/man/*",
    "var/lib/apt/lists/*",
    "var/lib/apt/mirrors",
    "var/lib/dpkg/*-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
)
# Directories that stay, without the files in them.
_EMPTY = ("run", "tmp", "var/log", "var/tmp")
_MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")

_OVERLAY_XATTR = "trusted.overlay."
_KEPT_XATTR = "trusted.overlay.opaque"


def tidy(tree: Path, *, epoch: int) -> None:
    """Make ``tree``, a stage's root or upper directory, ready to be packed."""
    inside = tree.resolve()
    for pattern in (*_CACHES, *(f"{name}/**/*" for name in _EMPTY)):
        emptied = pattern.endswith("**/*")
        for path in list(tree.glob(pattern)):
            # An absolute link in the image (/var/run) leads into the host's own tree from here.
            outside = not path.parent.resolve().is_relative_to(inside)
            stays = emptied and path.is_dir() and not path.is_symlink()
            if not outside and not stays:
                _delete(path)
    for name in _MACHINE_IDS:
        # Empty, not absent: something to mount over, and systemd's sign of a first boot.
        if (tree / name).is_file() and (tree / name).resolve().is_relative_to(inside):
            (tree / name).write_bytes(b"")
    _set_password_dates(tree / "etc/shadow", epoch)
    for directory, names, files in os.walk(tree):
        for entry in (directory, *(os.path.join(directory, name) for name in (*names, *files))):
            _strip_overlay_marks(entry)


def _delete(path: Path) -> None:
    # A whiteout is a deletion of something below, which must stay.
    found = path.lstat()
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _set_password_dates(shadow: Path, epoch: int) -> None:
    """Passwords "last changed" on the day of the build become as old as the rest."""
    if not shadow.is_file():
        return
    lines = []
    for line in shadow.read_text().splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2]:
            fields[2] = str(epoch // 86400)
        lines.append(":".join(fields))
    shadow.write_text("\n".join(lines) + "\n")


def _strip_overlay_marks(path: str) -> None:
    """Remove overlayfs's notes about the build's own lower directories; "opaque" is content."""
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(_OVERLAY_XATTR) and name != _KEPT_XATTR:
            os.removexattr(path, name, follow_symlinks=False)
