"""Ceilings of the whole host that one container could reach, and then nobody else gets anything.

They are from a time when nobody else paid for what they limit; now all of it is memory that is
charged to the sprite which takes it (but for neighbours: their table is only made large). So they
are raised, as systemd does with some of them, and not put back: something may stand above.

And a switch that the root of any network namespace turns on for the whole host, and nobody turns off
(net/netfilter/nf_hooks_lwtunnel.c): whether SRv6 tunnels pass netfilter's hooks. It is on before there is
a sprite that could choose.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger(__name__)

_SYSCTL = Path("/proc/sys")

CEILINGS = {
    "fs/file-max": (1 << 63) - 1,
    "fs/aio-max-nr": 1 << 24,
    "kernel/pid_max": 1 << 22,
    "kernel/threads-max": 1 << 22,
    "kernel/pty/max": 1 << 20,
    "net/ipv4/neigh/default/gc_thresh3": 1 << 18,
    "net/ipv4/neigh/default/gc_thresh2": 1 << 17,
    "net/ipv6/neigh/default/gc_thresh3": 1 << 18,
    "net/ipv6/neigh/default/gc_thresh2": 1 << 17,
    "net/netfilter/nf_hooks_lwtunnel": 1,
}

_told: set[str] = set()


def lift(root: Path = _SYSCTL) -> None:
    """Raise every ceiling that is lower than it should be. What cannot be raised is logged, once."""
    for name, wanted in CEILINGS.items():
        file = root / name
        try:
            if int(file.read_text()) < wanted:
                file.write_text(str(wanted))
        except FileNotFoundError:
            continue  # this kernel has no such thing, so no ceiling
        except OSError as error:
            if name not in _told:
                log.warning("%s stays as it is, and one sprite could use it up for all: %s", name, error)
                _told.add(name)
