"""The program that runs inside a chamber's namespaces: mounts it together, runs its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from spriggan.image import erofs
from spriggan.image.chamber import Chamber
from spriggan.linux import mount

_NODES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
# Everything that would need more than the upper directory itself to be understood stays off:
# a layer must mean the same on every host.
_OVERLAY_OPTIONS = "redirect_dir=off,metacopy=off,index=off,xino=off"
_REFUSE_SERVICES = "#!/bin/sh\n# Nothing runs in a root directory that is being made.\nexit 101\n"


def _assemble(chamber: Chamber) -> None:
    root = chamber.root
    if chamber.layers:
        lower = []
        for number, layer in enumerate(chamber.layers):
            place = Path(chamber.work) / "lower" / str(number)
            place.mkdir(exist_ok=True)
            erofs.mount_file(Path(layer), place)
            lower.append(f"lower/{number}")
        # Relative paths: a colon in the data directory's path would divide it.
        os.chdir(chamber.work)
        options = f"lowerdir={':'.join(lower)},upperdir=upper,workdir=work,{_OVERLAY_OPTIONS}"
        mount.mount("overlay", root, "overlay", options=options)
    for name, mode in (("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("run", 0o755), ("tmp", 0o1777)):
        if not (root / name).exists():
            (root / name).mkdir()
            (root / name).chmod(mode)
    mount.mount("tmpfs", root / "dev", "tmpfs", mount.MS_NOSUID, "mode=755,size=64k")
    for name in _NODES:
        (root / "dev" / name).touch()
        mount.bind(f"/dev/{name}", root / "dev" / name)
    for name, target in _LINKS.items():
        (root / "dev" / name).symlink_to(target)
    mount.mount("proc", root / "proc", "proc", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
    mount.mount("tmpfs", root / "run", "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=755")
    mount.mount("tmpfs", root / "tmp", "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=1777")
    if chamber.archives:
        mount.bind(chamber.archives, root / "var/cache/apt/archives")
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text(_REFUSE_SERVICES)
        policy.chmod(0o755)


def main() -> int:
    chamber = Chamber(**json.loads(Path(sys.argv[1]).read_text()))
    here = Path.cwd()
    _assemble(chamber)
    os.chdir(here)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for command in chamber.commands:
        code = subprocess.run(command, env=environment, check=False).returncode
        if code:
            return code if code > 0 else 128 - code
    return 0


if __name__ == "__main__":
    sys.exit(main())
