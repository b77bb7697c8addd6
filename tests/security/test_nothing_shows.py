"""Nothing inside tells where the sprite is, on whose host, or who else is there."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacks import PRELUDE, attack, attack_json, running, wait_for

import serving


@pytest.fixture(scope="module")
def other(server: serving.Server) -> Iterator[Any]:
    made = server.client().create_sprite("somebody-else-entirely")
    serving.run(made, "(sleep 4242 &)")
    yield made
    made.delete()


def identity(server: serving.Server, sprite: Any) -> str:
    with server.http() as http:
        return str(http.get(f"/v1/sprites/{sprite.name}").json()["id"])


def telltales(server: serving.Server, other: Any) -> list[str]:
    """Words that are nowhere but on this host: its paths, its addresses, its other sprites."""
    addresses = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    found = {word.partition("/")[0] for line in addresses.splitlines() for word in line.split()[3:4]}
    found -= {"127.0.0.1", "::1"}
    found |= {str(server.data), "/run/spriggan", server.instance, other.name, identity(server, other)}
    found |= {str(Path(serving.__file__).parents[1]), server.token}
    if len(socket.gethostname()) > 8:
        found.add(socket.gethostname())
    return sorted(found)


# Reads everything there is, past the masks: root inside may take those away, and mount its own.
LOOK = """
import stat
assert libc.unshare(0x20000) == 0 and libc.mount(None, b"/", None, 0x40000 | 0x4000, None) == 0
for line in reversed(open("/proc/self/mountinfo").read().splitlines()):
    place = line.split()[4]
    if place.startswith(("/proc/", "/sys/", "/.pilot/")) and not place.startswith("/sys/fs/cgroup"):
        libc.umount2(place.encode(), 2)
for kind in ("proc", "sysfs"):
    os.makedirs(f"/tmp/{kind}", exist_ok=True)
    assert libc.mount(kind.encode(), f"/tmp/{kind}".encode(), kind.encode(), 0, None) == 0
needles = [needle.encode() for needle in sys.argv[1:]]
found, read = set(), 0
def look(path, content):
    for needle in needles:
        if needle in content:
            found.add((path, needle.decode()))
def walk(top):
    pending = [top]
    while pending:
        directory = pending.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_symlink():
                    look(entry.path, os.fsencode(os.readlink(entry.path)))
                elif entry.is_dir():
                    # Arguments of this program have the words in them.
                    if entry.path.rpartition("/")[2] not in mine:
                        pending.append(entry.path)
                elif entry.is_file() and not entry.name.startswith(("kcore", "kpage", "pagemap", "mem")):
                    yield entry.path
            except OSError:
                continue
mine = set()
pid = os.getpid()
while pid > 2:
    mine.add(str(pid))
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
for top in ("/proc", "/sys", "/tmp/proc", "/tmp/sysfs", "/dev", "/run", "/.sprite", "/.pilot", "/etc"):
    for path in walk(top):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            look(path, os.read(fd, 1 << 16))
            read += 1
        except OSError:
            pass
        finally:
            os.close(fd)
for name in ("mountinfo", "mounts", "cgroup", "maps"):
    look(name, open(f"/proc/self/{name}", "rb").read())
print(json.dumps([read, sorted(found)]))
"""


def test_no_path_address_or_name_of_the_host_or_a_neighbour(
    server: serving.Server, sprite: Any, other: Any
) -> None:
    read, found = attack_json(sprite, LOOK, *telltales(server, other))
    assert read > 1000
    assert found == []


SPY = """
import threading
needles = [needle.encode() for needle in sys.argv[1:]]
found, seen = set(), set()
print("full", flush=True)
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
while not over.is_set():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        shown = {}
        for name in ("comm", "cmdline", "environ", "maps", "mountinfo", "cgroup", "stack", "auxv", "fdinfo/0"):
            try:
                shown[name] = open(f"/proc/{pid}/{name}", "rb").read()
            except OSError:
                pass
        for name in ("exe", "cwd", "root", *(f"fd/{number}" for number in range(20))):
            try:
                shown[name] = os.fsencode(os.readlink(f"/proc/{pid}/{name}"))
            except OSError:
                pass
        if b"needles" in shown.get("cmdline", b""):
            continue  # this program, and what started it
        seen.add(shown.get("comm", b"").decode().strip())
        found |= {
            (name, needle.decode())
            for name, content in shown.items()
            for needle in needles
            if needle in content
        }
print(json.dumps([sorted(seen), sorted(found)]), flush=True)
"""


def test_a_command_that_is_being_started_shows_nothing(
    server: serving.Server, sprite: Any, other: Any
) -> None:
    """The runtime is a process of the host until the moment when it becomes the command."""
    # The sprite's own id may show: it is the container's name, and sprite-env tells it, too.
    with running(server, sprite.name, SPY, *telltales(server, other)) as spy:
        wait_for(lambda: spy.full is not None)
        with server.http() as http:
            for number in range(40):
                answer = http.post(f"/v1/sprites/{sprite.name}/exec", params={"cmd": "true"})
                assert answer.content == b"\x03\x00", number
                http.get(f"/v1/sprites/{sprite.name}/fs/list", params={"path": "/tmp"})
    seen, found = json.loads(spy.words[-1])
    # Started from a copy in memory, it is named after the descriptor.
    assert any(name in ("crun", "runc", "runc:[2:INIT]") or name.isdigit() for name in seen), seen
    assert found == []


@pytest.mark.parametrize("how", ["exec", "terminal", "init"])
def test_processes_start_with_nothing_open_but_their_streams(
    server: serving.Server, sprite: Any, how: str
) -> None:
    look = f"""
open_files = {{}}
for number in os.listdir("/proc/{1 if how == "init" else "self"}/fd"):
    try:
        open_files[number] = os.readlink("/proc/{1 if how == "init" else "self"}/fd/" + number)
    except OSError:
        pass  # of the listing itself
print("\\n" + json.dumps(open_files))
"""
    flags = ["--tty"] if how == "terminal" else []
    sudo = ["sudo"] if how == "init" else []
    done = server.cli("exec", "-s", sprite.name, *flags, "--", *sudo, "python3", "-c", PRELUDE + look)
    open_files = json.loads(done.stdout.decode().splitlines()[-1])
    wanted = {"exec": "pipe:[", "terminal": "/dev/pts/", "init": "/dev/null"}[how]
    assert sorted(open_files) == ["0", "1", "2"]
    assert all(target.startswith(wanted) for target in open_files.values()), open_files


def test_a_neighbours_processes_and_files_are_not_there(sprite: Any, other: Any) -> None:
    found = attack(
        sprite,
        """
pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
commands = [open(f"/proc/{pid}/cmdline").read().split("\\0")[0] for pid in pids]
print("sleep" in commands, len(pids) < 10, open("/proc/net/unix").read().count("\\n"))
for kind in ("shm", "msg", "sem"):
    print(open(f"/proc/sysvipc/{kind}").read().count("\\n"))
""",
    )
    assert found.split() == ["False", "True", "1", "1", "1", "1"]


def test_keyrings_are_the_sprites_own(sprite: Any, other: Any) -> None:
    """The session's, the user's and the user session's, that processes share without being told to."""
    program = """
names = {"session": -3, "user": -4, "user session": -5}
number = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
keys = {name: libc.syscall(ctypes.c_long(number[0]), 0, kind, 0) for name, kind in names.items()}
if keys["session"] < 0 and ctypes.get_errno() == errno.ENOSYS:
    keys = None
else:
    for kind in names.values():
        libc.syscall(ctypes.c_long(number[1]), b"user", sys.argv[1].encode(), b"secret", 6, kind)
print(json.dumps(keys))
"""
    here, there = (attack_json(each, program, each.name) for each in (sprite, other))
    if here is None:
        pytest.skip("needs a kernel with keyrings (CONFIG_KEYS)")
    program = (
        f"import sys; sys.argv[1:] = ['host']\n{PRELUDE}{program.replace('number[1]', '39')}"  # 39: getpid
    )
    host = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    kept = [{key for key in keys.values() if key > 0} for keys in (here, there, host)]
    assert not kept[0] & kept[1] and not kept[0] & kept[2]
    search = """
number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
print([libc.syscall(ctypes.c_long(number), 10, kind, b"user", sys.argv[1].encode(), 0) for kind in (-3, -4, -5)])
"""
    assert attack(sprite, search, other.name) == "[-1, -1, -1]"
    assert "-1, -1, -1" not in attack(sprite, search, sprite.name)
