"""A Debian guest without Spriggan: its root file system, its kernels and how they boot.

Built on the host by root with mmdebstrap, from where the host gets its own packages; nothing of it
runs but the programs of that Debian in a chroot.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import guest_cache

from spriggan.image import packages
from spriggan.image.command import Runner
from spriggan.image.sources import Distribution, host_sources, stanzas

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = os.environ.get("SPRIGGAN_GUEST_SUITE", "bookworm")
KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
SIZE = "16G"  # sparse
VENV = "/opt/spriggan"

_PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "kmod", "iproute2", "procps", "util-linux"),
    *("python3", "python3-venv"),
    *packages.PACKAGES,
)
_EXCLUDED = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/locale/*")
# What a disk on virtio needs before there is a root file system; ext4 is in Debian's kernels.
_EARLY = ("virtio_pci", "virtio_blk")

_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1)); [ $tries -lt 600 ] || exec /bin/busybox echo "the guest has no disk"
    /bin/busybox sleep 0.05
done
/bin/busybox mount -t ext4 /dev/vda /root
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root /sbin/init
"""

# In the chroot-to-be ($1), with the wheels in $2: users, units and Python's libraries.
_FINISH = """\
root=$1 wheels=$2 venv=$3
echo host >"$root/etc/hostname"
echo "127.0.0.1 localhost host" >"$root/etc/hosts"
printf "[Match]\\nType=ether\\n[Network]\\nDHCP=ipv4\\n" >"$root/etc/systemd/network/20-wired.network"
echo "nameserver 10.0.2.3" >"$root/etc/resolv.conf" # QEMU's
: >"$root/etc/machine-id"
chroot "$root" systemctl --quiet mask serial-getty@ttyS0.service getty@tty1.service apt-daily.timer \\
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \\
    systemd-timesyncd.service systemd-networkd-wait-online.service
chroot "$root" systemctl --quiet enable systemd-networkd.service
chroot "$root" systemctl --quiet set-default multi-user.target
mkdir "$root/wheels"
mount --bind "$wheels" "$root/wheels"
chroot "$root" python3 -m venv "$venv"
chroot "$root" sh -c "$venv/bin/pip --isolated --quiet install --no-index /wheels/*.whl"
umount "$root/wheels"
rmdir "$root/wheels"
"""


@dataclass(frozen=True)
class Kernel:
    """What QEMU starts."""

    image: Path
    initrd: Path


@dataclass(frozen=True)
class Base:
    """A root file system without Spriggan, and its kernels by their short version."""

    root: Path
    kernels: dict[str, Kernel]


@functools.cache
def base() -> Base:
    """The guests' base, from the cache or made now (minutes)."""
    key = guest_cache.digest([Path(__file__).read_bytes(), SUITE.encode(), *map(str.encode, _libraries())])
    directory = guest_cache.cached("base", key, _make)
    kernels = {
        version: Kernel(directory / version / "vmlinuz", directory / version / "initrd")
        for version in KERNELS
        if (directory / version).exists()
    }
    return Base(directory / "root.img", kernels)


def _make(directory: Path) -> None:
    directory.mkdir()
    runner = Runner(
        directory / "log", {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_"))}
    )
    root = directory / "root"
    runner.run(["apt-get", "-q", "update"], what="fetching the host's package lists")
    _bootstrap(root, runner)
    for version, package in KERNELS.items():
        _add_kernel(directory / version, package, root, runner)
    wheels = _download_libraries(directory / "wheels", root, runner)
    runner.run(
        ["sh", "-eu", "-c", _FINISH, "finish", root, wheels, VENV], what="finishing the root", isolated=True
    )
    format_disk(directory / "root.img", SIZE, runner, tree=root)
    for part in (root, wheels):
        runner.run(["rm", "-rf", part], what="cleaning up")


def format_disk(image: Path, size: str, runner: Runner, *, tree: Path | None = None) -> None:
    """Make ``image`` a sparse ext4 file system of ``size`` with the files of ``tree``."""
    runner.run(["truncate", "-s", size, image], what="making a disk")
    options = ["-q", "-F", "-i", "65536", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    source = ["-d", tree] if tree else []
    runner.run(["mkfs.ext4", *options, *source, image], what="formatting a disk")


def _bootstrap(root: Path, runner: Runner) -> None:
    host = Distribution.of_host()
    sources = [replace(s, suite=s.suite.replace(host.codename, SUITE)) for s in host_sources(host)]
    listed = root.parent / "guest.sources"
    listed.write_text(stanzas(sources))
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    # A build that loses power is thrown away, so nothing needs to be flushed.
    dpkg = [f"--dpkgopt={line}" for line in ("force-unsafe-io", *_EXCLUDED)]
    options = ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    runner.run(
        [*command, *dpkg, *options, SUITE, root, listed], what="making the guests' root", isolated=True
    )
    for name in ("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)  # of the host


def _add_kernel(directory: Path, package: str, root: Path, runner: Runner) -> None:
    """Put the package's modules into ``root``, its kernel and a small initrd into ``directory``."""
    directory.mkdir()
    shown = runner.output(["apt-cache", "depends", package], what=f"looking for {package}")
    real = re.search(r"Depends: (linux-image-\S+)", shown)
    if real is None:
        raise LookupError(f"apt knows no {package}: {shown}")
    early = directory / "early"
    for name in (real[1], "busybox-static"):
        runner.run(["apt-get", "-q", "download", name], what=f"downloading {name}", cwd=directory)
    for deb in directory.glob("*.deb"):
        runner.run(["dpkg-deb", "-x", deb, early], what=f"unpacking {deb.name}")
        deb.unlink()
    (kernel,) = early.glob("boot/vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    kernel.rename(directory / "vmlinuz")
    modules = root / "usr/lib/modules" / version
    modules.parent.mkdir(exist_ok=True)
    (found,) = [p for p in (early / "lib/modules", early / "usr/lib/modules") if p.exists()]
    runner.run(["mv", found / version, modules], what="moving the modules")
    runner.run(["depmod", "-b", root, version], what="listing the modules")
    _make_initrd(directory, early, root, version, runner)
    runner.run(["rm", "-rf", early], what="cleaning up")


def _make_initrd(directory: Path, early: Path, root: Path, version: str, runner: Runner) -> None:
    tree = directory / "tree"
    for name in ("bin", "dev", "root", "modules"):
        (tree / name).mkdir(parents=True)
    (busybox,) = [p for p in (early / "bin/busybox", early / "usr/bin/busybox") if p.exists()]
    busybox.rename(tree / "bin/busybox")
    order = []
    for module in _EARLY:
        shown = runner.output(
            ["modprobe", "--dirname", root, "--set-version", version, "--show-depends", module],
            what=f"finding {module}",
        )
        for line in shown.splitlines():
            if line.startswith("insmod "):
                file = Path(line.split()[1])
                data = file.read_bytes()
                name = file.name.removesuffix(".xz")
                (tree / "modules" / name).write_bytes(lzma.decompress(data) if file.suffix == ".xz" else data)
                order += [name] if name not in order else []
    (tree / "modules/order").write_text(" ".join(order))
    (tree / "init").write_text(_INIT)
    (tree / "init").chmod(0o755)
    files = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    with (directory / "initrd").open("wb") as initrd:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], cwd=tree, input=files.encode(), stdout=initrd, check=True
        )
    runner.run(["rm", "-rf", tree], what="cleaning up")


def _libraries() -> list[str]:
    """What pip must bring: the project's dependencies, those of its tests, and what builds it."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    skipped = ("import-linter", "mypy", "ruff")
    tests = [n for n in project["project"]["optional-dependencies"]["dev"] if not n.startswith(skipped)]
    return [*project["build-system"]["requires"], "wheel", *project["project"]["dependencies"], *tests]


def _download_libraries(wheels: Path, root: Path, runner: Runner) -> Path:
    version = next((root / "usr/lib").glob("python3.*")).name.removeprefix("python")
    wheels.mkdir()
    command = [sys.executable, "-m", "pip", "-q", "download", "--only-binary=:all:", "--dest", wheels]
    runner.run([*command, "--python-version", version, *_libraries()], what="downloading Python's libraries")
    return wheels
