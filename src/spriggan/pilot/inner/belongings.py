"""What the pilot gives this sprite alone to see under ``/.sprite``: its API socket, its policy, its checkpoints.

They lie in the staging tree, so that no path of the host shows in the sprite's mount table.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spriggan.linux.autofs import Automount

SOCKET = "inner.sock"
POLICY = "policy"
CHECKPOINTS = "checkpoints"

log = logging.getLogger(__name__)


def prepare(staging: Path, root: int) -> Automount | None:
    """Make what is shown; ``root`` is the sprite's root on the host. Once for a staging tree.

    Returns what the directory of checkpoints is filled by, when somebody looks; None where the kernel
    has no autofs, and it is a plain directory.
    """
    for name in (POLICY, CHECKPOINTS):
        (staging / name).mkdir(exist_ok=True)
        (staging / name).chmod(0o755)
    return _tried(lambda: Automount.mounted(staging / CHECKPOINTS, root))


def take_over(staging: Path, device: Path) -> Automount | None:
    """What the directory of checkpoints is filled by from now on, in place of a pilot that has ended.

    ``device`` is autofs's own. None if the directory is a plain one.
    """
    if not os.path.ismount(staging / CHECKPOINTS):
        return None
    return _tried(lambda: Automount.taken_over(staging / CHECKPOINTS, device))


def _tried(automount: Callable[[], Automount]) -> Automount | None:
    try:
        return automount()
    except OSError as error:
        log.warning("checkpoints can be looked at only after sprite-env checkpoints mount: %s", error)
        return None


def publish_policy(staging: Path, rules: list[dict[str, Any]]) -> None:
    """Show the network policy as ``/.sprite/policy/network.json``, in the form of the API."""
    temporary = staging / POLICY / ".new"
    temporary.write_text(json.dumps({"rules": rules}, indent=2) + "\n")
    temporary.chmod(0o644)
    temporary.rename(staging / POLICY / "network.json")


def give(staging: Path, root: int, group: int) -> None:
    """Let the sprite's root, which is ``root`` on the host, and its user's ``group`` use the socket.

    Who may use it can run commands as that user; nobody else inside is to become it this way.
    """
    for directory in (staging / CHECKPOINTS).iterdir():  # the mounts ended with the container before
        directory.rmdir()
    socket = staging / SOCKET
    os.chown(socket, root, root + group)
    socket.chmod(0o660)
