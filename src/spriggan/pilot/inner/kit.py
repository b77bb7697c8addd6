"""What the zygote makes once, for all pilots."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from spriggan import __version__
from spriggan.linux import autofs, namespaces
from spriggan.linux.mount import MS_NOSUID, MS_REC, MS_SLAVE, mount
from spriggan.pilot import inside, keepalive
from spriggan.pilot.inner.runtime import Runtime

TINI = "tini-static"
FILES = {"sprite-env": 0o755, "llm.txt": 0o644}  # with their modes, from the package "inside"
VERSION = "version.txt"


@dataclass(frozen=True)
class Kit:
    """``shown`` is what a sprite sees as /.pilot, ``null`` a null device of our own."""

    shown: Path
    shown_with_keepalive: Path  # the same where the sprite's root has no tail
    null: Path
    autofs: Path  # autofs's device, which the host may have made after this namespace
    runtime: Runtime

    @classmethod
    def make(cls, directory: Path) -> Kit:
        """Mount a small file system at ``directory``, in a mount namespace that this makes.

        A copy in memory, because a bind mount from the host's own file system would show its device and
        path in the sprite's mount table. Raises ``OSError`` naming what this host lacks.
        """
        tini = shutil.which(TINI)
        if tini is None:
            raise OSError(f"{TINI} is not installed; run `spriggan setup`")
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_SLAVE)
        directory.mkdir(exist_ok=True)
        mount("pilot", directory, "tmpfs", MS_NOSUID, "mode=755,size=4m")
        kit = cls(
            directory / "sprite",
            directory / "keepalive",
            directory / "null",
            directory / "autofs",
            Runtime.load(),
        )
        for shown in (kit.shown, kit.shown_with_keepalive):
            for name in ("proc", "sys"):
                (shown / "kernel" / name).mkdir(parents=True)  # see oci.UNMASKED
            shutil.copy(tini, shown / "tini")
            (shown / "tini").chmod(0o755)
            for name, mode in FILES.items():
                (shown / name).write_bytes(resources.files(inside).joinpath("files", name).read_bytes())
                (shown / name).chmod(mode)
            (shown / VERSION).write_text(f"v{__version__}\n")
            (shown / VERSION).chmod(0o644)
        program = kit.shown_with_keepalive / keepalive.NAME
        program.write_bytes(keepalive.program())
        program.chmod(0o755)
        os.mknod(kit.null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(kit.autofs, stat.S_IFCHR | 0o600, autofs.DEVICE)
        return kit
