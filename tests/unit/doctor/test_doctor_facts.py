"""What the doctor reads, understood."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.doctor import boot, guest, network, privileges
from spriggan.pilot.inner import resolver

LINES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "nameserver 10.0.0.53",
                "nameserver ::1",
                "nameserver fe80::1%eth0",
                "# nameserver 1.1.1.1",
                "search a b",
            ]
        ),
        st.text(max_size=30),
    )
)


@given(LINES)
def test_the_name_servers_are_those_of_the_sprites_resolver(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert network.upstreams(text) == resolver.upstreams_in(text)


@given(st.sets(st.sampled_from(sorted(privileges.NEEDED))))
def test_lacking_capabilities_are_named(lacking: set[str]) -> None:
    effective = sum(1 << n for name, n in privileges.NEEDED.items() if name not in lacking)
    status = f"Name:\tspriggan\nCapPrm:\t{2**40 - 1:016x}\nCapEff:\t{effective:016x}\n"
    assert set(privileges.lacking(status)) == lacking


def test_who_answers_and_who_does_not() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]

        def answer() -> None:
            message, client = server.recvfrom(512)
            server.sendto(message[:2] + b"\x81\x80" + message[4:], client)

        thread = threading.Thread(target=answer)
        thread.start()
        # Nobody listens on the second; the third can have no route.
        assert network.ask(["127.0.0.1", "127.0.0.2", "::ffff:0:0"], 0.5, port) == {"127.0.0.1"}
        thread.join()


def test_a_guest_runs_in_real_mode_wherever_there_is_kvm() -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/kvm")
    fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        guest.run(fd)
    except guest.GuestFailed as error:  # a KVM that interprets knows no SSE2
        assert error.stage.startswith("64-bit")
        assert error.exit == "KVM_EXIT_INTERNAL_ERROR"
    finally:
        os.close(fd)


def test_the_newest_kernel_is_taken(tmp_path: Path) -> None:
    assert boot.kernel(tmp_path) is None
    for name in ("vmlinuz-6.1.0-9-amd64", "vmlinuz-6.1.0-40-amd64", "config-6.12.0-1-amd64"):
        (tmp_path / name).touch()
    found = boot.kernel(tmp_path)
    assert found is not None
    assert found.name == "vmlinuz-6.1.0-40-amd64"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_space_in_a_chroot(tmp_path: Path) -> None:
    """There no mount is above the data directory."""
    code = "import sys; from pathlib import Path; from spriggan.doctor import data; import os; "
    code += "os.chroot(sys.argv[1]); os.chdir('/'); print(data._kind(Path('/')))"
    (tmp_path / "proc").mkdir()
    command = (
        f'mount -t proc proc "$1/proc" && exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$1"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", tmp_path], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "file system"
