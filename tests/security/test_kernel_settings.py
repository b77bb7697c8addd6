"""What a sprite's root may set in /proc and /sys is the sprite's own: nobody else's settings change."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attacks import attack, attack_json, create

import serving

# Every namespace that a program can make for itself, and in it every capability again.
NESTED = """
if sys.argv[1] == "nested":
    assert libc.unshare(0x10000000 | 0x40000000 | 0x20000 | 0x08000000 | 0x04000000 | 0x02000000) == 0
"""
nested = pytest.mark.parametrize("where", ["plain", "nested"])

# Writes something else into everything below /proc/sys, and says what that now holds.
SET = (
    NESTED
    + """
import contextlib
def others(old):
    words = old.split()
    if words and all(word.lstrip("-").isdigit() for word in words):
        for step in (1, -1, 7, -7):
            yield " ".join(str(int(word) + step) for word in words)
    yield from ("1", "0", "2", "reno", "changed")
changed = {}
for top in ("/proc/sys", "/.pilot/kernel/proc/sys"):
    for directory, _, names in os.walk(top):
        for name in names:
            path = f"{directory}/{name}"
            try:
                old = open(path).read().strip()
                for new in others(old):
                    with contextlib.suppress(OSError), open(path, "w") as file:
                        file.write(new)
                    now = open(path).read().strip()
                    if now != old and now.split() == new.split():
                        changed[path.partition("/proc/sys/")[2]] = now
                        break
            except (OSError, ValueError):
                continue
print(json.dumps(changed))
"""
)


@nested
def test_settings_of_the_kernel(server: serving.Server, sprite: Any, where: str) -> None:
    other = create(server, "looks-on")
    try:
        before, theirs = host_settings(), neighbours_settings(other)
        changed = attack_json(sprite, SET, where)
        assert len(changed) > 100, "the attack does not set even its own"
        after = host_settings()
        reached = {name for name, value in changed.items() if before.get(name) != after.get(name) == value}
        for name in reached:  # so that no other test suffers
            with contextlib.suppress(OSError):
                Path("/proc/sys", name).write_text(before[name])
        assert not reached
        now = neighbours_settings(other)
        assert {name for name in changed if theirs.get(name) != now.get(name)} <= {"kernel/ns_last_pid"}
    finally:
        other.delete()


def host_settings() -> dict[str, str]:
    values = {}
    for directory, _, names in os.walk("/proc/sys"):  # links of others come and go meanwhile
        for path in (Path(directory, name) for name in names):
            with contextlib.suppress(OSError, ValueError):
                values[str(path.relative_to("/proc/sys"))] = path.read_text().strip()
    return values


def neighbours_settings(sprite: Any) -> dict[str, str]:
    script = "cd /proc/sys; find . -type f -exec grep -H '' {} + 2>/dev/null || true"
    lines = serving.run(sprite, script).splitlines()
    return {line.partition(":")[0].removeprefix("./"): line.partition(":")[2] for line in lines}


# Opens for writing, and writes nothing: some of these would turn the machine off.
OPEN = (
    NESTED
    + """
for line in reversed(open("/proc/self/mountinfo").read().splitlines()):
    place = line.split()[4]
    if place.startswith(("/proc/", "/sys/")) and not place.startswith("/sys/fs/cgroup"):
        libc.umount2(place.encode(), 2)
opened = set()
for top in ("/proc", "/sys", "/.pilot/kernel/proc", "/.pilot/kernel/sys"):
    for directory, below, names in os.walk(top):
        if directory == top:
            below[:] = [name for name in below if not name.isdigit()]
        for name in names:
            path = os.path.realpath(f"{directory}/{name}")
            if path.startswith(("/proc/sys/", "/.pilot/kernel/proc/sys/", "/sys/fs/cgroup/")):
                continue  # there are tests of their own for these
            if any(f"/{part}/" in path for part in ("proc/" + str(os.getpid()), "net/lo", "net/spr0")):
                continue
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                opened.add(path.removeprefix("/.pilot/kernel"))
            except OSError:
                pass
print(json.dumps(sorted(opened)))
"""
)


@nested
def test_files_of_the_kernel(sprite: Any, where: str) -> None:
    """Beyond its own processes and links a sprite may write to none but those with which anybody may wait
    for pressure.
    """
    found = attack_json(sprite, OPEN, where)
    masks = {path for path in found if is_masked(path)}
    assert {path for path in found if not path.startswith("/proc/pressure/")} - masks == set()


def is_masked(path: str) -> bool:
    """Whether a file of this name that can be opened inside is but the null device over the real one."""
    return path in ("/proc/keys", "/proc/swaps", "/proc/cmdline", "/proc/timer_list", "/proc/kcore")


def test_who_is_killed_first_is_not_for_a_sprite_to_say(sprite: Any) -> None:
    """A sprite goes before the host's own programs when memory is used up, and stays there."""
    lowest = attack(
        sprite,
        """
lowest = 1000
for score in range(1000, -1001, -10):
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
        lowest = int(open("/proc/self/oom_score_adj").read())
    except OSError:
        break
print(lowest)
""",
    )
    # A root without CAP_SYS_RESOURCE (bit 24) can set a score, but no floor under it.
    mine = int(Path("/proc/self/status").read_text().partition("CapEff:\t")[2].split()[0], 16)
    assert int(lowest) >= (500 if mine >> 24 & 1 else 0)


def test_programs_for_kinds_of_files(sprite: Any, tmp_path: Path) -> None:
    """binfmt_misc: what a sprite registers is started by nobody else, if it can register at all."""
    magic = b"SPRIGGAN-TEST"
    said = attack(
        sprite,
        """
os.makedirs("/tmp/b", exist_ok=True)
if libc.mount(b"binfmt_misc", b"/tmp/b", b"binfmt_misc", 0, None) < 0:
    print(errno.errorcode[ctypes.get_errno()])
else:
    try:
        with open("/tmp/b/register", "w") as file:
            file.write(":evil:M::SPRIGGAN-TEST::/bin/echo:CF")
        print(open("/tmp/b/evil").read().split()[0])
    except OSError as error:
        print(errno.errorcode[error.errno])
""",
    )
    assert said in ("enabled", "EPERM", "EACCES", "ENODEV"), said
    program = tmp_path / "program"
    program.write_bytes(magic + b"\n")
    program.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        subprocess.run([str(program)], check=False)
    assert not Path("/proc/sys/fs/binfmt_misc/evil").exists()
