"""User namespaces: a sprite's own, and those that programs make inside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from spriggan.doctor.check import Place, words
from spriggan.doctor.finding import Finding, limited, works
from spriggan.errors import MissingCapability
from spriggan.linux import namespaces, process
from spriggan.linux.mount import mount
from spriggan.net import addresses, claims

_SYSCTL = Path("/proc/sys")
_FEW = 256  # user namespaces in a sprite: a browser takes one for each tab, a container one
_MORE = "sysctl -w user.max_user_namespaces=65536"
_USER = 1000  # the id that the user of our image has

# What can forbid user namespaces to those who are not the machine's root: (setting, value that
# forbids, value that allows).
_BARRIERS = (
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 23.10 and later
)


@contextmanager
def namespace(flags: int = 0) -> Iterator[int]:
    """The pid of a process in a user namespace like a sprite's. Raises ``MissingCapability``."""
    with ExitStack() as stack:
        try:
            pid = stack.enter_context(namespaces.user_namespace(addresses.first_id(0), flags))
        except OSError as error:
            raise MissingCapability(words(error), hint=_MORE) from error
        yield pid


def user_namespaces(place: Place) -> Finding | str:
    """A namespace that maps ids as a sprite's does."""
    with namespace():
        pass
    most = _setting("user.max_user_namespaces")
    if most is not None and int(most) < _FEW:
        return limited(
            f"ids are mapped, but a sprite can have no more than {most}, with those made inside it",
            costs="containers and sandboxes inside sprites fail beyond that",
            fix=_MORE,
        )
    return f"ids are mapped; up to {most} in each sprite" if most is not None else "ids are mapped"


def nested(place: Place) -> Finding | str:
    """What rootless podman, bubblewrap and browsers do inside a sprite, as its user."""
    with namespace() as pid:
        userns = namespaces.open_namespace(pid, "user")
    try:
        process.in_child(lambda: _sandbox(userns, place.scratch))
    except OSError as error:
        barriers = [barrier for barrier in _BARRIERS if _setting(barrier[0]) == barrier[1]]
        because = "".join(f"; {name} is {forbids}" for name, forbids, _ in barriers)
        return limited(
            f"a user of a sprite cannot use a user namespace ({words(error)}){because}",
            costs="podman, bubblewrap, and browsers with their sandbox, do not start inside sprites",
            fix=" && ".join(f"sysctl -w {name}={allows}" for name, _, allows in barriers),
        )
    finally:
        os.close(userns)
    return "users of a sprite can make user namespaces and mount in them"


def _sandbox(userns: int, scratch: Path) -> None:
    namespaces.setns(userns)
    os.setgroups([])
    os.setresgid(_USER, _USER, _USER)
    os.setresuid(_USER, _USER, _USER)
    process.set_dumpable()  # else its own files in /proc would not be its own
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/self/{name}").write_text(f"0 {_USER} 1")
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount("none", scratch, "tmpfs")


def subordinate_ids(place: Place) -> Finding | str:
    """Whose ranges in /etc/subuid and /etc/subgid lie where the ids of sprites do."""
    ours = range(addresses.first_id(0), addresses.first_id(addresses.BLOCK * addresses.BLOCKS - 1))
    taken = [ids for ids in claims.subordinate_ranges() if ids.start < ours.stop and ours.start < ids.stop]
    if not taken:
        return works(f"nobody else's in {ours.start} to {ours.stop + addresses.ID_COUNT - 1}")
    count = sum(len(range(max(i.start, ours.start), min(i.stop, ours.stop))) for i in taken)
    slots = -(-count // addresses.ID_COUNT) + len(taken)
    if slots < addresses.BLOCK * addresses.BLOCKS // 2:
        return works(f"ranges in /etc/subuid and /etc/subgid take up to {slots} slots, which are passed over")
    return limited(
        f"ranges in /etc/subuid and /etc/subgid take most of the ids of sprites ({slots} slots)",
        costs="few sprites can run at once, or none",
        fix="move the ranges in /etc/subuid and /etc/subgid below 268435456",
    )


def _setting(name: str) -> str | None:
    """A sysctl; None where the kernel has none of that name."""
    try:
        return (_SYSCTL / name.replace(".", "/")).read_text().strip()
    except FileNotFoundError:
        return None
