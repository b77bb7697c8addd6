"""The doctor where something is missing: it names it, what it costs, and what mends it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from doctoring import ESSENTIAL, NEEDS, SPRIGGAN, examine, path_without, shell

pytestmark = NEEDS


@pytest.mark.parametrize(
    ("programs", "check", "package"),
    [
        (["crun", "runc"], "runtime", "crun"),
        (["tini-static"], "runtime", "tini"),
        (["nft"], "nftables", "nftables"),
        (["mkfs.ext4"], "overlay", "e2fsprogs"),
        (["mkfs.btrfs"], "btrfs", "btrfs-progs"),
    ],
)
def test_an_essential_program_is_not_installed(
    tmp_path: Path, programs: list[str], check: str, package: str
) -> None:
    report = examine(PATH=path_without(tmp_path / "bin", *programs))
    assert report.code == 1
    assert report[check]["status"] == "missing"
    assert programs[0] in report[check]["detail"]
    assert report[check]["costs"]
    assert f"apt-get install {package}" in report[check]["fix"]
    others = {name: status for name, status in report.statuses.items() if name in ESSENTIAL - {check}}
    assert set(others.values()) <= {"works", "limited"}, others


def test_without_mkfs_erofs_sprites_run_but_images_are_not_built(tmp_path: Path) -> None:
    report = examine(PATH=path_without(tmp_path / "bin", "mkfs.erofs"))
    assert report.code == 0
    assert report["erofs"]["status"] == "works"
    assert report["image-building"]["status"] == "missing"
    assert report["image-building"]["fix"] == "apt-get install erofs-utils"


def test_root_of_a_user_namespace_is_not_root() -> None:
    report = examine(within="unshare --user --map-root-user")
    assert report.code == 1
    assert report["root"]["status"] == "missing"
    assert "user namespace" in report["root"]["detail"]
    assert report["runtime"]["status"] == "untried"
    assert report["space"]["status"] == "works"


def test_root_without_capabilities_is_told_which() -> None:
    bound = "setpriv --bounding-set -sys_admin,-net_admin --inh-caps -all"
    report = examine(within=bound)
    assert report.code == 1
    assert report["root"]["status"] == "missing"
    assert "NET_ADMIN, SYS_ADMIN" in report["root"]["detail"]


def test_who_is_not_root_is_told_so_first() -> None:
    done = _as_nobody("doctor", "--data", "/var/tmp")
    assert done.returncode == 1
    first = next(line for line in done.stdout.splitlines() if line.startswith("  "))
    assert "missing" in first
    assert "not" not in first.split("uid")[0]
    assert "this runs as uid 65534, and sprites need root" in first
    assert "Traceback" not in done.stdout + done.stderr
    refused = _as_nobody("serve", "--data", "/var/tmp/never-made")
    assert refused.returncode == 1
    assert refused.stderr.startswith("spriggan: running the server needs root")


def test_no_cgroup_file_system_is_mounted() -> None:
    report = examine(within=shell("umount -R -l /sys/fs/cgroup", "--mount --propagation private"))
    assert report.code == 1
    assert report["cgroups"]["status"] == "missing"
    assert "cgroup" in report["cgroups"]["detail"]
    assert report["cgroups"]["fix"].startswith("mount -t cgroup2")


def test_no_loop_devices(tmp_path: Path) -> None:
    keep = f"for node in null zero full random urandom tty; do cp -a /dev/$node {tmp_path}/$node; done"
    script = f"mount -t tmpfs none {tmp_path}; {keep}; mount -t tmpfs none /dev; cp -a {tmp_path}/* /dev/"
    report = examine(within=shell(script, "--mount --propagation private"))
    assert report.code == 1
    assert report["loop"]["status"] == "missing"
    assert "/dev/loop-control" in report["loop"]["detail"]
    assert report["loop"]["fix"].startswith("modprobe loop")
    assert report["fuse"]["status"] == "missing"
    assert report["tun"]["status"] == "missing"
    assert report["kvm"]["status"] == "missing"
    assert "no /dev/kvm" in report["kvm"]["detail"]


RULES = """
table inet mine {
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
}
"""


def test_a_forward_chain_that_drops_is_named_with_what_to_add() -> None:
    script = f"echo '{RULES}' | nft -f -"
    report = examine(within=shell(script, "--net"))
    assert report.code == 0  # sprites run, without the Internet
    assert report["firewall"]["status"] == "limited"
    assert "nftables table inet mine" in report["firewall"]["detail"]
    assert 'iifname "sg' in report["firewall"]["fix"]
    assert report["forwarding"]["status"] == "works"  # it is off there, and can be switched on
    assert report["dns"]["status"] == "limited"
    assert report["ipv6"]["status"] == "missing"


def test_the_firewall_is_asked_about_the_interfaces_of_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "instance.json").write_text('{"id": "ab12cd34"}\n')
    let_through = RULES.replace("ct state", 'iifname "sgab12-*" accept\n ct state')
    report = examine(within=shell(f"echo '{let_through}' | nft -f -", "--net"), data=tmp_path)
    assert report["firewall"]["status"] == "works"
    other = examine(within=shell(f"echo '{RULES}' | nft -f -", "--net"), data=tmp_path)
    assert 'iifname "sgab12-*" accept' in other["firewall"]["fix"]


def test_forwarding_that_is_off_and_cannot_be_switched_on() -> None:
    script = "echo 0 >/proc/sys/net/ipv4/ip_forward; mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"
    report = examine(within=shell(script, "--net --mount --propagation private"))
    assert report.code == 1
    assert report["forwarding"]["status"] == "missing"
    assert "net.ipv4.ip_forward=1" in report["forwarding"]["fix"]


def test_a_full_small_disk_has_no_room(tmp_path: Path) -> None:
    image, root = tmp_path / "host.img", tmp_path / "host"
    root.mkdir()
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "64", image], check=True)
    script = f"mount -o loop {image} {root}; dd if=/dev/zero of={root}/ballast bs=1M 2>/dev/null || true"
    report = examine(within=shell(script, "--mount --propagation private"), data=root / "data")
    assert report.code == 1
    assert report["space"]["status"] == "missing"
    assert f"0.0 GiB free of 0.0 GiB on the ext4 of {root}" in report["space"]["detail"]
    assert "--data" in report["space"]["fix"]
    # With a pool there, what is in it can still be used, also if not one more file can be made.
    script = f"mount -o loop {image} {root}; mkdir {root}/data; touch {root}/data/pool.img; cd {root}"
    script += "; i=0; while touch file$i; do i=$((i + 1)); done 2>/dev/null; cd /"
    report = examine(within=shell(script, "--mount --propagation private"), data=root / "data")
    assert report.code == 0, report.facts
    assert report["space"]["status"] == "limited"


def test_a_data_directory_in_memory_is_gone_after_a_reboot(tmp_path: Path) -> None:
    script = f"mount -t tmpfs none {tmp_path}"
    report = examine(within=shell(script, "--mount --propagation private"), data=tmp_path)
    assert report["file-system"]["status"] == "limited"
    assert "tmpfs" in report["file-system"]["detail"]
    # No layer is mounted from a file in memory; the other way is the one of kernels before 6.12.
    assert report["erofs"]["status"] == "works"
    assert "through a loop device" in report["erofs"]["detail"]


def test_a_data_directory_on_a_read_only_disk(tmp_path: Path) -> None:
    script = f"mount -t tmpfs -o ro none {tmp_path}"
    report = examine(within=shell(script, "--mount --propagation private"), data=tmp_path)
    assert report.code == 1
    assert report["file-system"]["status"] == "missing"
    assert "Read-only" in report["file-system"]["detail"]


def test_a_data_directory_whose_file_system_holds_no_large_files(tmp_path: Path) -> None:
    # A file size limit is what is at hand; vfat would need its tools.
    report = examine(within=f"prlimit --fsize={1 << 30}", data=tmp_path)
    assert report["file-system"]["status"] == "missing"
    assert "holds no file of" in report["file-system"]["detail"]


def _as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line run by uid 65534, who may not even read the checkout: everything is loaded before."""
    code = (
        "import os, sys\n"
        "import spriggan.cli.doctor, spriggan.cli.serve\n"
        "from spriggan.cli.main import main\n"
        "os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)\n"
        "main(sys.argv[1:])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd="/", check=False
    )


def test_serve_refuses_with_the_doctors_words(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": path_without(tmp_path / "bin", "crun", "runc")}
    done = subprocess.run(
        [SPRIGGAN, "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "this machine lacks what sprites need" in done.stderr
    assert "container runtime: neither crun nor runc is installed" in done.stderr
    assert "apt-get install crun" in done.stderr
    assert "'spriggan doctor'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
