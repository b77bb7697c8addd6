"""Whole Debian hosts with the kernels that people have, Spriggan their systemd service.

Two guests side by side, under emulation: slow, and so few and long tests, in the order of a host's life.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import guest
import guest_base
import guest_root
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.machine]

SPRIGGAN = f"{guest_base.VENV}/bin/spriggan"
PYTHON = f"{guest_base.VENV}/bin/python"
CORE = [
    "tests/api/test_main_job.py",
    "tests/api/test_exec_from_outside.py",
    "tests/functional/test_warmth.py",
    "tests/functional/test_two_servers.py",
    "tests/functional/test_nested.py",
    "tests/functional/test_failed_commands.py",
    "tests/functional/test_fork_identity.py",
    "tests/security/test_walls.py",
]
# Repeating the same a thousand times finds nothing more here, and a guest's way out is its host's affair.
NOT = "thousand or internet"

# Files of many sizes, none of them synced by anybody.
TREE = (
    "mkdir -p tree && cd tree && for n in $(seq 300); do head -c $((n * 97)) /dev/urandom >f$n; done; "
    "ln -s f1 link; mkdir -m 0700 private; sudo install -m 4711 /bin/true private/s"
)
LOOK = "cd /home/sprite && find . | sort | xargs stat -c '%n %s %a %u' && find . -type f | sort | sudo xargs sha256sum"

Guests = dict[str, guest.Guest]


@pytest.fixture(scope="module")
def guests() -> Iterator[Guests]:
    guest.require()
    with ExitStack() as stack:
        started = {}
        for kernel in guest_base.KERNELS:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="spriggan-", dir="/var/tmp"))
            )
            started[kernel] = stack.enter_context(guest.guest(directory, kernel))
        yield started


def on_each(guests: Guests, check: Callable[[str, guest.Guest], None]) -> None:
    """Do the same on all guests at once; all failures are reported."""
    done = guest.side_by_side([partial(check, kernel, machine) for kernel, machine in guests.items()])
    failed = {
        kernel: future.exception() for kernel, future in zip(guests, done, strict=True) if future.exception()
    }
    assert not failed, "\n\n".join(f"Linux {kernel}: {error}" for kernel, error in failed.items())


def spriggan(machine: guest.Guest, *arguments: str) -> str:
    """Run the command line in the guest."""
    return machine.run(f"{SPRIGGAN} {shlex.join(arguments)}", timeout=600)


def inside(machine: guest.Guest, sprite: str, script: str) -> str:
    """Run a script in a sprite of the guest."""
    return spriggan(machine, "exec", "-s", sprite, "--", "sh", "-c", script)


def ready(machine: guest.Guest) -> None:
    """Wait until the service answers. Its own command line would take seconds for every look."""
    look = "bash -c '</dev/tcp/127.0.0.1/7878' 2>/dev/null"
    machine.run(f"until {look}; do sleep 0.2; done", timeout=120)


def test_they_are_stock_hosts(guests: Guests) -> None:
    def check(kernel: str, machine: guest.Guest) -> None:
        assert machine.run("uname -r").startswith(f"{kernel}."), machine.run("uname -r")
        assert (
            machine.run("stat -f -c %T /sys/fs/cgroup; grep -c ' cgroup ' /proc/mounts || true")
            == "cgroup2fs\n0"
        )
        assert machine.run("ps -o comm= -p 1") == "systemd"
        assert machine.run(f"{SPRIGGAN} setup --check") == ""
        assert "ro," in machine.run(f"findmnt -n -o OPTIONS {guest_root.IMAGES}")
        assert machine.run("systemctl --failed --no-legend") == ""

    on_each(guests, check)


def test_the_demo_passes(guests: Guests) -> None:
    def check(_: str, machine: guest.Guest) -> None:
        machine.run("systemctl enable --now spriggan")
        ready(machine)
        variables = "SPRITES_API_URL=http://127.0.0.1:7878 SPRITE_TOKEN=$(cat /var/lib/spriggan/token)"
        said = machine.run(f"{variables} {PYTHON} /checkout/scripts/demo.py", timeout=600)
        assert said.endswith("All is well."), said

    on_each(guests, check)


def test_the_core_tests_pass(guests: Guests) -> None:
    def check(_: str, machine: guest.Guest) -> None:
        command = f"{PYTHON} -m pytest -q -p no:cacheprovider -k 'not ({NOT})' {' '.join(CORE)}"
        environment = f"SPRIGGAN_IMAGE_CACHE={guest_root.IMAGES}"
        done = machine.attempt(f"cd /checkout && {environment} {command}", timeout=1200)
        assert done.code == 0 and "skipped" not in done.output, done.output[-20_000:]

    on_each(guests, check)


def test_a_restart_of_the_service_keeps_sprites_and_their_processes(guests: Guests) -> None:
    def check(_: str, machine: guest.Guest) -> None:
        spriggan(machine, "create", "stays")
        inside(machine, "stays", TREE)
        inside(machine, "stays", "setsid sleep 4711 >/dev/null 2>&1 & echo started")
        server = "systemctl show -P MainPID spriggan"
        process = "ps -eo pid=,lstart=,args= | grep ' [s]leep 4711$'"
        before = machine.run(server), machine.run(process)
        machine.run("systemctl restart spriggan")
        ready(machine)
        after = machine.run(server), machine.run(process)
        assert before[0] != after[0] and before[1] == after[1], (before, after)
        assert inside(machine, "stays", "pgrep -fc '[s]leep 4711'") == "1"

    on_each(guests, check)


def test_a_reboot_brings_sprites_back_cold_with_all_their_data(guests: Guests) -> None:
    def check(_: str, machine: guest.Guest) -> None:
        kept = inside(machine, "stays", LOOK)
        spriggan(machine, "checkpoint", "create", "-s", "stays")
        spriggan(machine, "create", "asleep")
        inside(machine, "asleep", TREE)
        spriggan(machine, "stop", "asleep")
        inside(machine, "stays", "rm -r tree; echo later >later")
        before = inside(machine, "stays", LOOK)
        machine.reboot()
        ready(machine)
        listed = json.loads(spriggan(machine, "list", "--json"))
        assert {sprite["name"]: sprite["status"] for sprite in listed} == {"stays": "cold", "asleep": "cold"}
        assert inside(machine, "stays", LOOK) == before
        assert inside(machine, "asleep", "cd tree && ls | wc -l") == "302"
        spriggan(machine, "checkpoint", "restore", "-s", "stays", "v1")
        assert inside(machine, "stays", LOOK) == kept

    on_each(guests, check)


def test_down_leaves_nothing(guests: Guests) -> None:
    def check(_: str, machine: guest.Guest) -> None:
        machine.run("systemctl stop spriggan")
        spriggan(machine, "down")
        left = machine.run(
            f"for n in $(seq 20); do left=$({PYTHON} {guest_root.CHECKOUT}/tests/hosts/inside/leftovers.py); "
            '[ -n "$left" ] || break; sleep 0.5; done; echo "$left"'
        )
        assert left == "", left
        assert machine.run("systemctl --failed --no-legend") == ""

    on_each(guests, check)
