"""KVM: it counts as usable only after a real boot."""

from __future__ import annotations

import os
from pathlib import Path

from spriggan.doctor import boot, guest
from spriggan.doctor.boot import Reached
from spriggan.doctor.check import Place, install, words
from spriggan.doctor.finding import Finding, limited, missing

DEVICE = Path("/dev/kvm")
COSTS = "virtual machines run in software emulation, many times slower; containers do not need it"
BOOT_SECONDS = 15.0


def kvm(place: Place) -> Finding | str:
    """First a guest of some instructions, which unmasks in milliseconds what only pretends; then a boot."""
    if not DEVICE.exists():
        return missing(
            "there is no /dev/kvm", costs=COSTS, fix=_how_to_get(Path("/proc/cpuinfo").read_text())
        )
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.uname().machine != "x86_64":
            return limited(
                "/dev/kvm can be opened; nothing was run on it, as the try is for x86-64 only",
                costs="whether it works is not known",
            )
        guest.run(fd)
    except guest.GuestFailed as error:
        return missing(
            f"/dev/kvm is there, but {error}: it interprets simple code and cannot boot an ordinary kernel",
            costs=COSTS,
            fix="nested virtualization in the hypervisor below (VT-x or AMD-V passed on to this machine)",
        )
    except OSError as error:
        return missing(f"/dev/kvm is there, but makes no machine: {words(error)}", costs=COSTS)
    finally:
        os.close(fd)
    return _boot()


def _boot() -> Finding | str:
    program, image = boot.qemu(), boot.kernel()
    if program is None or image is None:
        lacking = "there is no QEMU here" if program is None else f"there is no kernel in {boot.BOOT}"
        return limited(
            f"it ran 64-bit code with paging and SSE2; whether a kernel boots was not tried: {lacking}",
            costs="whether virtual machines work is not known",
            fix=install("qemu-system-x86" if program is None else "linux-image-amd64"),
        )
    reached = boot.boot(program, image, accelerator="kvm", cpu="host", patience=BOOT_SECONDS)
    if reached is Reached.BOOTED:
        return f"{image.name} booted in {Path(program).name}"
    if reached is Reached.STARTED:
        return limited(
            f"{image.name} started in {Path(program).name}, but was not done within {BOOT_SECONDS:.0f} s",
            costs="virtual machines start slowly, or get stuck",
            fix=_show(program, image),
        )
    return missing(
        f"it ran 64-bit code with paging and SSE2, but {image.name} printed nothing in {Path(program).name}",
        costs=COSTS,
        fix=_show(program, image),
    )


def _show(program: str, image: Path) -> str:
    return (
        f"see what it says: {program} -accel kvm -cpu host -nographic -append console=ttyS0 -kernel {image}"
    )


def _how_to_get(cpuinfo: str) -> str:
    for flag, module in (("vmx", "kvm_intel"), ("svm", "kvm_amd")):
        if f" {flag} " in cpuinfo:
            return f"modprobe {module}"
    return "switch virtualization on in the firmware; on a virtual machine, nested virtualization in its hypervisor"
