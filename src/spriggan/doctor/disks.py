"""What a sprite's disk and root are made of, each tried in memory."""

from __future__ import annotations

import base64
import os
import zlib
from contextlib import ExitStack
from pathlib import Path

from spriggan.disk import blank, holders
from spriggan.disk.volume import Volume
from spriggan.doctor import users
from spriggan.doctor.check import Place
from spriggan.doctor.data import unnamed_file
from spriggan.doctor.finding import Finding
from spriggan.image import erofs
from spriggan.linux import btrfs, loop, mapped, namespaces, process
from spriggan.linux.mount import MOUNT_ATTR_IDMAP, MOUNT_ATTR_RDONLY, MS_RDONLY, mount, umount
from spriggan.net import addresses

# An erofs file system with one file, "layer", packed as our layers are:
#   python3 -c 'print("packed by lz4\n" * 1000, end="")' >tree/layer; touch -d @0 tree/layer
#   mkfs.erofs -zlz4hc,9 -C65536 -T0 --all-root -U00000000-0000-0000-0000-000000000000 layer.erofs tree
_LAYER = (
    "c-rmRJqp4w6u|M9hzcU5N9bTtK{|=E-oPtV?PLdWtDC3r0v@2di$_s+adL2~X)T@FLTCR!2>Ey~j|8$s1i-&~+~2p){BmlUabH}~B"
    "{{l5y|j*MkZ(zn*fsICY0rhoB%dcnRc_fi-Mk-|s9UUQ8Rz4nIj!e;p&teNvYK7f&PS1W_M5Ak`&F%{HN;k<G_IYvqj`1!00000000"
    "00D7<$5dK+w<Rpf++Y0t{O#G1P<v+Z9+TT)s"
)
_TEXT = "packed by lz4\n" * 1000


def overlay(place: Place) -> Finding | str:
    """A sprite's disk, and an overlay on it, with mapped ids; a file is written as the sprite's root."""
    first_id = addresses.first_id(0)
    image, disk = place.scratch / "disk.img", place.scratch / "disk"
    blank.make(image, 1)
    with ExitStack() as stack:
        pid = stack.enter_context(users.namespace())
        userns = namespaces.open_namespace(pid, "user")
        stack.callback(os.close, userns)
        for name in ("disk", "layer", "root"):
            (place.scratch / name).mkdir()
        with loop.attach(image) as device:
            mount(device, disk, "ext4", options="discard")
        stack.callback(lambda: umount(disk))
        (disk / "docker" / "file").write_text("below")
        mapped.show(disk, disk, userns, MOUNT_ATTR_IDMAP)
        mapped.show(disk / "docker", place.scratch / "layer", userns, MOUNT_ATTR_RDONLY)
        stack.callback(umount, place.scratch / "layer")
        upper, work = "/disk/root-upper/upper", "/disk/root-upper/work"
        options = f"lowerdir=/layer,upperdir={upper},workdir={work}"
        mapped.overlay(place.scratch, "root", options, first_id)
        stack.callback(umount, place.scratch / "root")
        process.in_child(lambda: _write_as_root(userns, place.scratch / "root"))
    return "files can be written over a layer, on an ext4 disk, as a sprite's root"


def _write_as_root(userns: int, root: Path) -> None:
    namespaces.setns(userns)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    with (root / "file").open("a") as file:
        file.write(" and above")


def layers(place: Place) -> Finding | str:
    """A compressed layer, mounted and read: from its file, or on older kernels through a loop device."""
    target = place.scratch / "layer"
    target.mkdir()
    with ExitStack() as stack:
        file = stack.enter_context(unnamed_file(place))
        file.write(zlib.decompress(base64.b85decode(_LAYER)))
        file.flush()
        try:
            mount(f"/proc/self/fd/{file.fileno()}", target, "erofs", MS_RDONLY)
        except OSError:  # not from a file, or not from one in memory; a loop device wants one with a name
            file.seek(0)
            named = place.scratch / "layer.erofs"
            named.write_bytes(file.read())
            erofs.mount_file(named, target)
        stack.callback(umount, target)
        if (target / "layer").read_text() != _TEXT:
            raise OSError("erofs is there, but reads something else than was written")
        mounted = holders.mounted_at(target)
    if mounted and mounted.source.startswith("/dev/loop"):
        return "mounted through a loop device (from its file with Linux 6.12 and later)"
    return "mounted from its file"


def pool(place: Place) -> Finding | str:
    """A pool as the data directory gets it, with a subvolume and its snapshot."""
    volume = Volume(place.scratch / "pool.img", place.scratch / "pool")
    volume.mount()
    try:
        btrfs.create_subvolume(volume.root / "disk")
        btrfs.snapshot(volume.root / "disk", volume.root / "checkpoint", read_only=True)
    finally:
        umount(volume.root)
    return "a pool was made and mounted, and a snapshot taken"
