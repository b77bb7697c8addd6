"""The process that keeps a sprite's container alive where the image has no ``tail``.

A static program that sleeps until it is told to end. It is a dozen instructions long, so it is made
here rather than compiled: an ELF header, one segment, and the code. Formats and numbers: elf(5), the
system call tables of Linux (``pause`` is 34 on x86-64; arm64 has none, so ``ppoll``, 73, without
anything to wait for), Intel's and Arm's manuals.
"""

from __future__ import annotations

import platform
import struct

NAME = "keepalive"

_ADDRESS = 0x400000
_HEADERS = 64 + 56

# ELF machine number and code.
_PROGRAMS = {
    "x86_64": (
        62,
        bytes.fromhex(
            "b822000000"  # again: mov eax, 34 (pause)
            "0f05"  # syscall
            "ebf7"  # jmp again
        ),
    ),
    "aarch64": (
        183,
        b"".join(
            struct.pack("<I", word)
            for word in (
                0xD2800000,  # again: mov x0, 0 (descriptors)
                0xD2800001,  # mov x1, 0 (their number)
                0xD2800002,  # mov x2, 0 (timeout: none)
                0xD2800003,  # mov x3, 0 (signal mask)
                0xD2800004,  # mov x4, 0 (its size)
                0xD2800928,  # mov x8, 73 (ppoll)
                0xD4000001,  # svc 0
                0x17FFFFF9,  # b again
            )
        ),
    ),
}


def program(machine: str | None = None) -> bytes:
    """The program for ``machine`` (this one, if not given), as an ELF file."""
    number, code = _PROGRAMS[machine or platform.machine()]
    size = _HEADERS + len(code)
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little-endian, version 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 2, number, 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)  # read and execute
    return header + segment + code
