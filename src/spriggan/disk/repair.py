"""Repair of a disk that does not mount: ``e2fsck -p``, once.

Once, because what it could not repair it will not repair the next time, and a sprite is woken by
every request. A note beside the image says that it was tried, until the disk mounts again; a disk
that was restored has none.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from spriggan.errors import Conflict, MissingCapability
from spriggan.linux import loop

# Exit codes from e2fsck(8): 1 and 2 are for errors that were corrected, the higher bits for the rest.
_CORRECTED = 1 | 2
_HEAD, _TAIL = 3000, 1000  # characters of what it says that are kept


@dataclass(frozen=True)
class Repair:
    """What came of it."""

    mended: bool  # as far as e2fsck can tell
    report: str  # what it said
    again: bool = False  # it had been tried before, and was not tried again


def repair(image: Path) -> Repair:
    """Run ``e2fsck -p`` on ``image``, unless that was tried since it last mounted.

    Raises ``Conflict`` if a loop device shows the image. While e2fsck runs one does: whoever would
    mount the disk meanwhile, even a server that took over from one that was killed, finds it in use.
    """
    note = _note(image)
    if note.exists():
        return Repair(False, note.read_text(errors="replace"), again=True)
    if loop.find(image):
        raise Conflict(f"{image} is in use and cannot be repaired", hint="try again in a moment")
    with loop.attach(image) as device:
        code, report = _e2fsck(device)
    note.write_text(report)
    return Repair(mended=not code & ~_CORRECTED, report=report)


def forget(image: Path) -> None:
    """The disk mounted: it may be repaired again when it does not."""
    _note(image).unlink(missing_ok=True)


def _note(image: Path) -> Path:
    return image.with_name("e2fsck.txt")


def _e2fsck(device: str) -> tuple[int, str]:
    """Its exit code, and what it said, without the device's name and in the middle cut."""
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                ["e2fsck", "-p", device],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C is for the server; a repair is not left half done
                check=False,
            )
        except FileNotFoundError as error:
            raise MissingCapability(
                "e2fsck is not installed", hint="Run `spriggan setup`, or: apt-get install e2fsprogs"
            ) from error
        output.seek(0)
        text = output.read().decode(errors="replace").replace(f"{device}: ", "").strip()
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n[…]\n{text[-_TAIL:]}"
    return done.returncode, text or f"e2fsck said nothing and ended with {done.returncode}"
