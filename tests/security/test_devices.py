"""No device of the host, no file system on one, and no door to the kernel that leads to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attacks import attack_json

nested = pytest.mark.parametrize("where", ["plain", "nested"])
# In a user namespace of its own a program has every capability again.
NESTED = """
if sys.argv[1] == "nested":
    assert libc.unshare(0x10000000 | 0x40000000 | 0x20000) == 0
"""

DOORS = (
    NESTED
    + """
numbers = {
    "x86_64": dict(
        init_module=175, finit_module=313, delete_module=176, kexec_load=246, kexec_file_load=320, bpf=321,
        perf_event_open=298, reboot=169, swapon=167, iopl=172, ioperm=173, acct=163, syslog=103,
        settimeofday=164, clock_settime=227, open_by_handle_at=304, fanotify_init=300, io_uring_setup=425,
        quotactl=179, quotactl_fd=443, userfaultfd=323, kcmp=312,
    ),
    "aarch64": dict(
        init_module=105, finit_module=273, delete_module=106, kexec_load=104, kexec_file_load=294, bpf=280,
        perf_event_open=241, reboot=142, swapon=224, acct=89, syslog=116, settimeofday=170,
        clock_settime=112, open_by_handle_at=265, fanotify_init=262, io_uring_setup=425, quotactl=60,
        quotactl_fd=443, userfaultfd=282, kcmp=272,
    ),
}[os.uname().machine]
zeros = ctypes.create_string_buffer(4096)
perf = ctypes.create_string_buffer(struct.pack("IIQ", 1, 128, 0) + bytes(112), 128)  # a software event
image = ctypes.create_string_buffer(open("/bin/true", "rb").read(4096), 4096)
program = os.open("/bin/true", os.O_RDONLY)
handle = ctypes.create_string_buffer(struct.pack("IiII", 8, 1, 2, 0), 64)  # an ext4's root directory
attempts = {
    "init_module": (image, 4096, b""),
    "finit_module": (program, b"", 0),
    "delete_module": (b"no-such-module", 0x800),
    "kexec_load": (0, 0, None, 0),
    "kexec_file_load": (program, program, 1, b"", 0),
    "bpf": (0, struct.pack("IIII", 2, 4, 4, 1) + bytes(112), 128),  # a map of one number
    "perf_event_open": (perf, 0, -1, -1, 0),
    "reboot": (0xFEE1DEAD, 672274793, 0, None),  # no more than to have Ctrl-Alt-Del be a signal
    "swapon": (b"/home/sprite/swap", 0),
    "iopl": (3,),
    "ioperm": (0x80, 1, 1),
    "acct": (b"/home/sprite/acct",),
    "syslog": (3, zeros, 64),
    "settimeofday": (None, zeros),  # the time zone alone
    "clock_settime": (0, zeros),
    "open_by_handle_at": (os.open("/tmp", os.O_RDONLY), handle, 0),
    "fanotify_init": (0, 0),
    "io_uring_setup": (4, zeros),
    "quotactl": (0x80000700, b"/dev/loop0", 0, zeros),
    "quotactl_fd": (program, 0x80000700, 0, zeros),
    "userfaultfd": (0,),
    "kcmp": (os.getpid(), os.getpid(), 0, 0, 0),
}
subprocess.run("cd /home/sprite; touch acct; truncate -s 1M swap; /sbin/mkswap swap", shell=True, capture_output=True)
opened = []
for name, arguments in attempts.items():
    if name in numbers:
        words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
        if libc.syscall(ctypes.c_long(numbers[name]), *words) >= 0:
            opened.append(name)
print(json.dumps(opened))
"""
)


@nested
def test_doors_to_the_whole_machine(sprite: Any, where: str) -> None:
    """Modules, kexec, BPF, performance counters, power, swap, ports, the clock, files by handle: all shut."""
    assert attack_json(sprite, DOORS, where) == []


NODES = (
    NESTED
    + """
import stat
made, opened = [], []
os.makedirs("/tmp/nodes", exist_ok=True)
libc.mount(b"tmpfs", b"/tmp/nodes", b"tmpfs", 0, None)
for number, line in enumerate(sys.argv[2:]):
    kind, major, minor = line.split(":")
    for directory in ("/tmp/nodes", "/dev", "/home/sprite", "/dev/shm"):
        path = f"{directory}/node{number}"
        try:
            os.mknod(path, 0o666 | (stat.S_IFBLK if kind == "b" else stat.S_IFCHR),
                     os.makedev(int(major), int(minor)))
            made.append(line)
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            opened.append(line)
        except OSError:
            pass
print(json.dumps([made, opened]))
"""
)


@nested
def test_device_nodes(sprite: Any, where: str) -> None:
    """Of every disk of the host, and of what else leads to its memory, log, disks or machines."""
    disks = [f"b:{device}" for device in disks_of_the_host()]
    others = ["c:1:1", "c:1:2", "c:1:4", "c:1:11", "c:4:1", "c:5:3", "c:10:223", "c:10:232", "c:10:234"]
    others += ["c:10:235", "c:10:236", "c:10:237", "c:10:238", "c:10:241", "c:21:0", "b:7:0"]
    assert attack_json(sprite, NODES, where, *disks, *others) == [[], []]


def disks_of_the_host() -> list[str]:
    found = [":".join(line.split()[:2]) for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    if not found:
        pytest.skip("needs a host that shows its disks in /proc/partitions")
    return found


# A file system of the attacker's own, in which a disk of the host is shown.
SHOWN = """
import stat, threading
major, minor = map(int, sys.argv[1].split(":"))
os.makedirs("/tmp/shown", exist_ok=True)
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
found = [libc.mount(b"shown", b"/tmp/shown", b"fuse", 0, options.encode())]
def attributes(node):
    mode, device = (0o40777, 0) if node == 1 else (0o60666, major << 8 | minor)
    return struct.pack("6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, device, 512, 0)
def serve():
    while True:
        request = os.read(fuse, 1 << 20)
        _, operation, unique, node = struct.unpack_from("IIQQ", request)
        if operation == 26:  # INIT
            answer = struct.pack("IIIIHHIIHHI", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0) + bytes(28)
        elif operation == 1:  # LOOKUP
            answer = struct.pack("QQQQII", 2, 1, 100, 100, 0, 0) + attributes(2)
        elif operation == 3:  # GETATTR
            answer = struct.pack("QII", 100, 0, 0) + attributes(node)
        else:
            os.write(fuse, struct.pack("IiQ", 16, -errno.ENOSYS, unique))
            continue
        os.write(fuse, struct.pack("IiQ", 16 + len(answer), 0, unique) + answer)
threading.Thread(target=serve, daemon=True).start()
libc.mount(None, b"/tmp/shown", None, 0x20 | 0x1000, None)  # MS_REMOUNT | MS_BIND, without MS_NODEV
found.append(stat.S_ISBLK(os.stat("/tmp/shown/disk").st_mode))
try:
    os.open("/tmp/shown/disk", os.O_RDONLY)
    found.append("opened")
except OSError as error:
    found.append(errno.errorcode[error.errno])
print(json.dumps(found), flush=True)
os._exit(0)
"""


def test_a_device_node_in_a_file_system_of_ones_own(sprite: Any) -> None:
    mounted, is_a_disk, outcome = attack_json(sprite, SHOWN, disks_of_the_host()[0])
    assert (mounted, is_a_disk) == (0, True)
    assert outcome in ("EACCES", "EPERM")


MOUNTS = (
    NESTED
    + """
where = "/tmp/mounted"
os.makedirs(where, exist_ok=True)
sources = ["none", "/tmp/image", "/dev/root", "/dev/sda", "/dev/sda1", "/dev/vda", "/dev/vda1", "/dev/nvme0n1",
           "/dev/loop0"]
subprocess.run("truncate -s 32M /tmp/image; /sbin/mkfs.ext4 -q /tmp/image", shell=True, capture_output=True)
mounted = set()
for kind in sys.argv[2:]:
    for source in sources:
        if libc.mount(source.encode(), where.encode(), kind.encode(), 1, None) == 0:
            mounted.add(kind)
            libc.umount2(where.encode(), 2)
print(json.dumps(sorted(mounted)))
"""
)
# With these the kernel lets the root of a user namespace do as it likes: they hold what is made in them, or
# show what is of its own namespaces.
HARMLESS = {
    "tmpfs",
    "ramfs",
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "mqueue",
    "devpts",
    "binfmt_misc",
    "overlay",
}
HARMLESS |= {"fuse", "bpf", "cpuset"}  # the last is one of cgroup, by its old name


@nested
def test_file_systems(sprite: Any, where: str) -> None:
    """Of all kinds that the host's kernel has, none that lies on a device or shows the host can be mounted."""
    kinds = [line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()]
    assert {"ext4", "btrfs"} <= set(kinds)
    found = set(attack_json(sprite, MOUNTS, where, *kinds))
    assert "tmpfs" in found, "the attack mounts nothing at all"
    assert found - HARMLESS == set()
