"""Ways into the kernel that stay shut for a sprite's root, in every namespace that it makes."""

from __future__ import annotations

import platform
from typing import Any

import pytest
from attacks import attack, attack_json

# In a user namespace of its own a program has every capability again.
NESTED = """
if len(sys.argv) > 1 and sys.argv[1] == "nested":
    assert libc.unshare(0x10000000 | 0x40000000 | 0x20000) == 0
"""

nested = pytest.mark.parametrize("where", ["", "nested"])


@nested
def test_only_families_of_sockets_that_know_namespaces(sprite: Any, where: str) -> None:
    found = attack_json(
        sprite,
        NESTED
        + """
opened = []
for family in [*range(64), 40 | 1 << 32, 40 | 1 << 63]:
    for kind in (1, 2, 3, 5):
        fd = libc.syscall(ctypes.c_long(41), ctypes.c_ulong(family), ctypes.c_ulong(kind), ctypes.c_ulong(0))
        if fd >= 0:
            os.close(fd)
            opened.append(family)
            break
libc.socket(40, 1, 0)
print(json.dumps([opened, errno.errorcode[ctypes.get_errno()]]))
""",
        where,
    )
    # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET
    assert found == [[1, 2, 10, 16, 17], "EAFNOSUPPORT"]


@nested
def test_no_rings_of_memory_that_nobody_is_charged_for(sprite: Any, where: str) -> None:
    attack(
        sprite,
        NESTED
        + """
ring = struct.pack("IIII", 1 << 16, 16, 2048, (1 << 16) // 2048 * 16)
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as packets:
    for high in (0, 1 << 32, 1 << 63):
        for level, option in ((263 | high, 5), (263, 5 | high), (263 | high, 13), (263, 13 | high)):
            arguments = map(ctypes.c_ulong, (packets.fileno(), level, option))
            assert libc.syscall(ctypes.c_long(54), *arguments, ring, ctypes.c_ulong(len(ring))) < 0, (level, option)
    packets.setsockopt(263, 8, 32)  # PACKET_RESERVE: the rest is as ever
with socket.socket() as tcp:
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
""",
        where,
    )


def test_32_bit_calls_are_no_way_around(sprite: Any) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("needs x86_64")
    program = r"""
#include <stdio.h>
#include <sys/mman.h>
static int call(int number, int a, int b, int c, int d, int e) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
                     : "memory", "r8", "r9", "r10", "r11");
    return result;
}
int main(void) {
    unsigned *args = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    args[0] = 40; args[1] = 1; args[2] = 0;
    printf("%d ", call(102, 1, (int)(long)args, 0, 0, 0));      /* socketcall(SYS_SOCKET) */
    printf("%d ", call(359, 40, 1, 0, 0, 0));                   /* socket(AF_VSOCK) */
    int packet = call(359, 17, 3, 0, 0, 0);
    args[0] = 1 << 16; args[1] = 16; args[2] = 2048; args[3] = (1 << 16) / 2048 * 16;
    printf("%d ", call(366, packet, 263, 5, (int)(long)args, 16)); /* setsockopt(PACKET_RX_RING) */
    args[8] = packet; args[9] = 263; args[10] = 5; args[11] = (unsigned)(long)args; args[12] = 16;
    printf("%d\n", call(102, 14, (int)(long)(args + 8), 0, 0, 0)); /* socketcall(SYS_SETSOCKOPT) */
    return 0;
}
"""
    (sprite.filesystem("/tmp") / "old.c").write_text(program)
    done = sprite.run("sh", "-c", "cc -o /tmp/old /tmp/old.c && sudo /tmp/old", capture_output=True)
    if done.returncode in (139, 159):
        pytest.skip("needs a kernel that runs 32-bit programs (CONFIG_IA32_EMULATION)")
    assert done.returncode == 0, done
    assert all(int(number) < 0 for number in done.stdout.split()), done.stdout


def test_no_core_dump_reaches_a_program_of_the_host(sprite: Any) -> None:
    """A limit of exactly 1 is what keeps the kernel from starting one; it cannot be changed."""
    found = attack_json(
        sprite,
        """
import signal
limits = [resource.getrlimit(resource.RLIMIT_CORE)]
for wanted in ((0, 0), (1, 1), (resource.RLIM_INFINITY,) * 2):
    try:
        resource.setrlimit(resource.RLIMIT_CORE, wanted)
        limits.append(resource.getrlimit(resource.RLIMIT_CORE))
        resource.prlimit(os.getpid(), resource.RLIMIT_CORE, wanted)
    except (OSError, ValueError):
        pass
    limits.append(resource.getrlimit(resource.RLIMIT_CORE))
libc.syscall(ctypes.c_long(160), ctypes.c_ulong(4 | 1 << 32), (ctypes.c_ulong * 2)(0, 0))
libc.syscall(ctypes.c_long(302), ctypes.c_long(0), ctypes.c_ulong(4 | 1 << 32), (ctypes.c_ulong * 2)(0, 0), None)
limits.append(resource.getrlimit(resource.RLIMIT_CORE))
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGSEGV)
status = os.waitpid(pid, 0)[1]
print(json.dumps([sorted(set(limits)), resource.getrlimit(resource.RLIMIT_NOFILE), os.WCOREDUMP(status)]))
""",
    )
    assert found == [[[1, 1]], [100, 200], False]
