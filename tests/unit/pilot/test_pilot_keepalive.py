"""The process that keeps a container alive: it sleeps, costs next to nothing, and ends when told to."""

from __future__ import annotations

import platform
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from spriggan.pilot import keepalive


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_a_static_program_of_one_segment(machine: str, number: int) -> None:
    program = keepalive.program(machine)
    kind, elf_machine, _, entry, headers = struct.unpack_from("<HHIQQ", program, 16)
    assert (program[:4], kind, elf_machine, headers) == (b"\x7fELF", 2, number, 64)
    segment, flags, offset, address, _, in_file, in_memory, _ = struct.unpack_from(
        "<IIQQQQQQ", program, headers
    )
    assert (segment, flags, offset) == (1, 5, 0), "readable and executable, never writable"
    assert in_file == in_memory == len(program)
    assert address < entry < address + len(program)


def test_it_sleeps_until_it_is_told_to_end(tmp_path: Path) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("needs x86-64 or arm64")
    file = tmp_path / keepalive.NAME
    file.write_bytes(keepalive.program())
    file.chmod(0o755)
    with subprocess.Popen([file]) as process:
        try:
            deadline = time.monotonic() + 10
            while "(sleeping)" not in (status := Path(f"/proc/{process.pid}/status").read_text()):
                assert time.monotonic() < deadline, status
                time.sleep(0.01)
            resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
            assert int(resident) < 200
            ticks = Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]
            assert ticks == ["0", "0"]
        finally:
            process.terminate()
        assert process.wait(30) == -signal.SIGTERM
