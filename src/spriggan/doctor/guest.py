"""A guest of a few instructions, by KVM's own calls: does this KVM run code as a processor does?

Some hypervisors offer KVM to their guests without the processor's help (PVM does). Such a KVM makes
virtual machines and runs simple code, by interpreting it; an ordinary kernel runs for half a minute
at a thousandth of the speed and stops with KVM_EXIT_INTERNAL_ERROR at the first instruction that the
interpreter does not know. So the guest here first runs some instructions in real mode, then in
64-bit mode with paging and with an SSE2 instruction among them, which the kernel's interpreter
(arch/x86/kvm/emulate.c) does not know and a processor just runs. That takes milliseconds.

Numbers and structures are those of include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

KVM_CREATE_VM = 0xAE01
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_CREATE_VCPU = 0xAE41
KVM_SET_TSS_ADDR = 0xAE47
KVM_RUN = 0xAE80
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_REGS = 0x4090AE82
KVM_SET_SREGS = 0x4138AE84
KVM_SET_CPUID2 = 0x4008AE90
KVM_GET_SREGS = 0x8138AE83
KVM_GET_SUPPORTED_CPUID = 0xC008AE05

KVM_EXIT_IO = 2
KVM_EXIT_HLT = 5
_EXITS = {
    0: "KVM_EXIT_UNKNOWN",
    2: "KVM_EXIT_IO",
    5: "KVM_EXIT_HLT",
    6: "KVM_EXIT_MMIO",
    8: "KVM_EXIT_SHUTDOWN",
    9: "KVM_EXIT_FAIL_ENTRY",
    17: "KVM_EXIT_INTERNAL_ERROR",
}

_MEMORY = 2 << 20
_CODE, _TABLES, _TSS = 0x1000, 0x2000, 0x7FFBD000
_PORT = 0x3F8
_CPUID_ENTRIES = 256

_SREGS_SIZE, _REGS = 312, struct.Struct("=18Q")
_SEGMENT = struct.Struct("=QIHBBBBBBBBBB")
_CR0, _CR3, _CR4, _EFER = 224, 240, 248, 264  # offsets in struct kvm_sregs

# add al, bl; add al, '0'; out dx, al; hlt: the same bytes in 16 and in 64 bits.
_ADD = bytes.fromhex("00d8 0430 ee f4")
# paddd xmm0, xmm1; mov rax, cr3; mov cr3, rax; mov al, '7'; out dx, al; hlt
_SSE2 = bytes.fromhex("660ffec1 0f20d8 0f22d8 b037 ee f4")


class GuestFailed(OSError):
    """The guest did not run to its end. ``stage`` says what it was to do, ``exit`` how it stopped."""

    def __init__(self, stage: str, exit_: str) -> None:
        super().__init__(f"{stage} stopped with {exit_}")
        self.stage = stage
        self.exit = exit_


def run(kvm: int) -> None:
    """Run the guest. ``kvm`` is a descriptor of /dev/kvm.

    Raises ``GuestFailed`` if this KVM cannot run it, another ``OSError`` if it makes no machine.
    """
    with _machine(kvm) as (vcpu, memory, state):
        sregs = bytearray(_SREGS_SIZE)
        fcntl.ioctl(vcpu, KVM_GET_SREGS, sregs)
        _enter_real_mode(vcpu, sregs)
        _expect(_execute(vcpu, memory, state, _ADD), b"7", "code in real mode")
        _enter_long_mode(vcpu, memory, sregs)
        _expect(_execute(vcpu, memory, state, _SSE2), b"7", "64-bit code with paging and SSE2")


@contextmanager
def _machine(kvm: int) -> Iterator[tuple[int, mmap.mmap, mmap.mmap]]:
    """A virtual machine with one processor: its descriptor, the memory, the shared state (struct kvm_run)."""
    with ExitStack() as stack:
        vm = fcntl.ioctl(kvm, KVM_CREATE_VM, 0)
        stack.callback(os.close, vm)
        fcntl.ioctl(vm, KVM_SET_TSS_ADDR, _TSS)  # older Intel processors need it for real mode
        memory = stack.enter_context(mmap.mmap(-1, _MEMORY))
        anchor = ctypes.c_char.from_buffer(memory)
        region = struct.pack("=IIQQQ", 0, 0, 0, _MEMORY, ctypes.addressof(anchor))
        del anchor  # or the memory could not be closed
        fcntl.ioctl(vm, KVM_SET_USER_MEMORY_REGION, region)
        vcpu = fcntl.ioctl(vm, KVM_CREATE_VCPU, 0)
        stack.callback(os.close, vcpu)
        cpuid = bytearray(struct.pack("=II", _CPUID_ENTRIES, 0) + bytes(40 * _CPUID_ENTRIES))
        fcntl.ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid)
        fcntl.ioctl(vcpu, KVM_SET_CPUID2, cpuid)
        size = fcntl.ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)
        yield vcpu, memory, stack.enter_context(mmap.mmap(vcpu, size))


def _execute(vcpu: int, memory: mmap.mmap, state: mmap.mmap, code: bytes) -> tuple[bytes, str]:
    """Run ``code`` (with 2 and 5 in rax and rbx) until it halts or fails; what it put out, and how it ended."""
    memory[_CODE : _CODE + len(code)] = code
    regs = _REGS.pack(2, 5, 0, _PORT, 0, 0, 0x8000, *[0] * 9, _CODE, 2)
    fcntl.ioctl(vcpu, KVM_SET_REGS, regs)
    output = b""
    while True:
        fcntl.ioctl(vcpu, KVM_RUN, 0)
        (reason,) = struct.unpack_from("=I", state, 8)
        if reason != KVM_EXIT_IO:
            return output, _EXITS.get(reason, f"exit {reason}")
        (offset,) = struct.unpack_from("=Q", state, 40)
        output += state[offset : offset + 1]


def _expect(ran: tuple[bytes, str], output: bytes, stage: str) -> None:
    if ran[1] != _EXITS[KVM_EXIT_HLT]:
        raise GuestFailed(stage, ran[1])
    if ran[0] != output:
        raise GuestFailed(stage, f"the wrong result {ran[0]!r}")


def _enter_real_mode(vcpu: int, sregs: bytearray) -> None:
    changed = bytearray(sregs)
    struct.pack_into("=Q", changed, 0, 0)  # cs.base, which is high up after a reset
    struct.pack_into("=H", changed, 12, 0)  # cs.selector
    fcntl.ioctl(vcpu, KVM_SET_SREGS, changed)


def _enter_long_mode(vcpu: int, memory: mmap.mmap, sregs: bytearray) -> None:
    """64 bits at privilege 0, the first 2 MiB mapped as they are, SSE allowed."""
    for level in (0, 1):
        struct.pack_into("=Q", memory, _TABLES + level * 0x1000, (_TABLES + (level + 1) * 0x1000) | 3)
    struct.pack_into("=Q", memory, _TABLES + 0x2000, 0x83)  # one large page
    changed = bytearray(sregs)
    for number in range(6):
        code = number == 0
        _SEGMENT.pack_into(
            changed, number * _SEGMENT.size, 0, 0xFFFFFFFF, 8 if code else 16, 11 if code else 3,
            1, 0, int(not code), 1, int(code), 1, 0, 0, 0,
        )  # fmt: skip
    struct.pack_into("=Q", changed, _CR0, 0x80050033)  # PG WP NE ET MP PE, AM
    struct.pack_into("=Q", changed, _CR3, _TABLES)
    struct.pack_into("=Q", changed, _CR4, 0x620)  # PAE OSFXSR OSXMMEXCPT
    struct.pack_into("=Q", changed, _EFER, 0xD00)  # NXE LMA LME
    fcntl.ioctl(vcpu, KVM_SET_SREGS, changed)
