"""Every check, in the order in which they are shown."""

from __future__ import annotations

from spriggan.doctor import (
    cgroups,
    data,
    devices,
    disks,
    images,
    kvm,
    memory,
    network,
    privileges,
    runtime,
    users,
)
from spriggan.doctor.check import Check, install

_NO_SPRITE = "no sprite can start"
_NO_SERVER = "the server does not start"

ESSENTIAL = [
    Check("root", "root", privileges.root, _NO_SERVER, essential=True),
    Check(
        "cgroups",
        "cgroups",
        cgroups.cgroups,
        _NO_SPRITE,
        fix="mount -t cgroup2 cgroup2 /sys/fs/cgroup (systemd does it; in a container, make it writable)",
        essential=True,
        private=True,
    ),
    Check(
        "user-namespaces",
        "user namespaces",
        users.user_namespaces,
        _NO_SPRITE,
        essential=True,
        private=True,
    ),
    Check(
        "runtime",
        "container runtime",
        runtime.container,
        _NO_SPRITE,
        fix=f"{install('crun')} (1.8 or later); on the machine itself, not in a container",
        essential=True,
        private=True,
    ),
    Check(
        "overlay",
        "disk and overlay",
        disks.overlay,
        _NO_SPRITE,
        fix="Linux 5.19 or later with ext4 and overlay: modprobe ext4 overlay",
        essential=True,
        private=True,
    ),
    Check(
        "erofs",
        "erofs layers",
        disks.layers,
        _NO_SPRITE,
        fix="modprobe erofs; cloud kernels have it in a package of extra modules (linux-modules-extra)",
        essential=True,
        private=True,
    ),
    Check(
        "btrfs",
        "btrfs pool",
        disks.pool,
        _NO_SERVER,
        fix="modprobe btrfs; cloud kernels have it in a package of extra modules (linux-modules-extra)",
        essential=True,
        private=True,
    ),
    Check(
        "loop",
        "loop devices",
        data.loops,
        _NO_SERVER,
        fix="modprobe loop; in a container, pass /dev/loop-control and the loop devices in",
        essential=True,
        private=True,
    ),
    Check(
        "nftables",
        "nftables",
        network.rules,
        _NO_SERVER,
        fix="modprobe nf_tables nft_ct nft_masq nft_reject_inet",
        essential=True,
        private=True,
    ),
    Check("links", "network links", network.links, _NO_SPRITE, "modprobe veth", essential=True, private=True),
    Check("forwarding", "forwarding", network.forwards, _NO_SERVER, essential=True),
    Check(
        "file-system",
        "data directory",
        data.file_system,
        _NO_SERVER,
        fix="choose a directory on a writable ext4, XFS or btrfs disk with --data",
        essential=True,
        private=True,
    ),
    Check("space", "space", data.space, _NO_SERVER, essential=True),
]

OPTIONAL = [
    Check("firewall", "firewall", network.firewall, "sprites may not reach the Internet", private=True),
    Check("dns", "name servers", network.dns, "names are not resolved in sprites"),
    Check("ipv6", "IPv6", network.ipv6, "sprites reach the Internet by IPv4 only"),
    Check("memory", "memory", memory.memory, "sprites compete for it"),
    Check("image", "image", images.image, "no sprite can be created"),
    Check("image-building", "image building", images.builders, "images cannot be built here"),
    Check(
        "nested",
        "nested containers",
        users.nested,
        "podman and sandboxes do not start inside sprites",
        private=True,
    ),
    Check("subordinate-ids", "subordinate ids", users.subordinate_ids, "fewer sprites can run at once"),
    Check(
        "fuse",
        "FUSE",
        devices.fuse,
        "sprites cannot mount FUSE file systems (sshfs, rclone)",
        fix="modprobe fuse",
        private=True,
    ),
    Check(
        "tun",
        "TUN/TAP",
        devices.tun,
        "sprites have no VPNs (WireGuard in user space, Tailscale)",
        fix="modprobe tun",
        private=True,
    ),
    Check("kvm", "KVM", kvm.kvm, kvm.COSTS, fix=install("qemu-system-x86"), private=True),
]
