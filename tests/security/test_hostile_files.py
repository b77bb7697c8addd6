"""The file endpoints against what a program inside can put in their way: they answer, and touch nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from attacks import PATIENCE_S, attack, running, wait_for, works

import serving

RACE_S = 12.0
AT_ONCE_S = 20.0  # far below every limit, far above what it takes


class Fs:
    """The file endpoints of one sprite."""

    def __init__(self, http: httpx.Client, sprite: str) -> None:
        self._http = http
        self._base = f"/v1/sprites/{sprite}/fs"

    def read(self, path: str, **headers: str) -> httpx.Response:
        return self._http.get(f"{self._base}/read", params={"path": path}, headers=headers)

    def write(self, path: str, content: bytes = b"x") -> httpx.Response:
        return self._http.put(f"{self._base}/write", params={"path": path}, content=content)

    def list(self, path: str, **query: str) -> httpx.Response:
        return self._http.get(f"{self._base}/list", params={"path": path, **query})

    def delete(self, path: str, **query: str) -> httpx.Response:
        return self._http.delete(f"{self._base}/delete", params={"path": path, **query})

    def post(self, what: str, **body: object) -> httpx.Response:
        return self._http.post(f"{self._base}/{what}", json=body)


@pytest.fixture
def fs(server: serving.Server, sprite: Any) -> Iterator[Fs]:
    with server.http() as http:
        http.timeout = httpx.Timeout(90)
        yield Fs(http, sprite.name)


def refused(answer: httpx.Response) -> str:
    """An error that says what is wrong; returns its code."""
    assert 400 <= answer.status_code < 500 or answer.status_code == 504, (answer.status_code, answer.text)
    body = answer.json()
    assert body["error"], body
    return str(body.get("code"))


# File systems that hang.


HANGING = """
where = sys.argv[1]
os.makedirs(where, exist_ok=True)
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
assert libc.mount(b"hang", where.encode(), b"fuse", 0, options.encode()) == 0
if sys.argv[2] == "reads":
    request = os.read(fuse, 1 << 20)
    ready = struct.pack("IIIIHHIIHHI", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0) + bytes(28)
    os.write(fuse, struct.pack("IiQ", 16 + len(ready), 0, struct.unpack_from("IIQ", request)[2]) + ready)
    import threading
    threading.Thread(target=lambda: [os.read(fuse, 1 << 20) for _ in iter(int, 1)], daemon=True).start()
full()
"""


@pytest.mark.slow
def test_a_file_system_that_hangs(server: serving.Server, sprite: Any, fs: Fs) -> None:
    """One that never takes a request, and one that takes them and never answers: who asks gets an answer."""
    with (
        running(server, sprite.name, HANGING, "/tmp/deaf", "never") as deaf,
        running(server, sprite.name, HANGING, "/tmp/mute", "reads") as mute,
    ):
        wait_for(lambda: deaf.full is not None and mute.full is not None)
        serving.run(sprite, "mkdir tree && ln -s /tmp/mute tree/link && echo x > file")
        attempts: list[Callable[[], httpx.Response]] = []
        for place in ("/tmp/deaf", "/tmp/mute"):
            attempts += [
                partial(fs.read, f"{place}/a"),
                partial(fs.list, place),
                partial(fs.list, f"{place}/b", recursive="true"),
                partial(fs.write, f"{place}/c"),
                partial(fs.delete, f"{place}/d", recursive="true"),
                partial(fs.post, "rename", source="/home/sprite/file", dest=f"{place}/e"),
                partial(fs.post, "copy", source=f"{place}/f", dest="/home/sprite/c"),
                partial(fs.post, "chmod", path=f"{place}/g", mode="0600"),
                partial(fs.post, "chown", path=f"{place}/h", uid=0, asRoot=True),
            ]
        attempts += [partial(fs.read, "/home/sprite/tree/link/x"), partial(fs.list, "/home/sprite/tree/link")]
        with ThreadPoolExecutor(len(attempts)) as pool:
            answers = [pool.submit(attempt) for attempt in attempts]
            works(server, sprite)  # meanwhile
            for answer in answers:
                assert refused(answer.result()) == "ETIMEDOUT", answer.result().text
                assert answer.result().status_code == 504 and "FUSE" in answer.result().json()["hint"]
        assert fs.read("/home/sprite/file").text == "x\n"
        # Those of the second file system are past every signal, and still hold nothing up.
        with server.http() as http:
            assert http.post(f"/v1/sprites/{sprite.name}/stop").status_code == 200
    works(server, sprite)
    assert not children_of_files(server, sprite)


def children_of_files(server: serving.Server, sprite: Any) -> list[int]:
    """Processes that do file operations for the sprite, without the one that forks them."""
    with server.http() as http:
        identity = http.get(f"/v1/sprites/{sprite.name}").json()["id"]
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text, group = status.read_text(), (status.parent / "cgroup").read_text()
        except OSError:
            continue
        if identity in group and "Name:\tpilot:files" in text:
            parent = int(text.partition("PPid:")[2].split()[0])
            if "pilot:files" in Path(f"/proc/{parent}/comm").read_text():
                found.append(int(status.parent.name))
    return found


def test_a_lease_on_a_file(server: serving.Server, sprite: Any, fs: Fs) -> None:
    """Whoever has one is asked to give it up, and may take three quarters of a minute to do so."""
    hold = """
import fcntl, signal
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open("/home/sprite/leased", os.O_RDWR | os.O_CREAT, 0o666)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
full()
"""
    with running(server, sprite.name, hold, user="sprite") as holder:
        wait_for(lambda: holder.full is not None)
        start = time.monotonic()
        assert refused(fs.read("/home/sprite/leased")) == "EAGAIN"
        assert fs.list("/home/sprite/leased").json()["count"] == 1
        assert fs.write("/home/sprite/leased", b"new").status_code == 200
        assert time.monotonic() - start < AT_ONCE_S
    assert fs.read("/home/sprite/leased").text == "new"


# Files that are not what they seem.


ODD = """
os.chdir("/home/sprite")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
with open("giant", "wb") as file:
    file.truncate(15 << 40)
    file.seek(1 << 40)
    file.write(b"here")
os.symlink("/etc/shadow", "shadow")
os.symlink("/proc/1/root/etc/shadow", "root")
os.symlink("loop", "loop")
os.symlink(sys.argv[1], "host")
os.symlink("/proc/1/root" + sys.argv[1], "host-by-proc")
os.symlink("/dev/zero", "zero")
"""

NOT_READ = [
    *("fifo", "socket", "shadow", "root", "loop", "host", "host-by-proc", "zero"),
    *("/etc/shadow", "/proc/1/root/etc/shadow", "/proc/1/mem", "/proc/1/environ", "/proc/1/fd/0"),
    *("/proc/kcore", "/proc/kmsg", "/proc/1/pagemap", "/proc/1/task/1/mem", "/proc/1/map_files"),
    *("/dev/zero", "/dev/full", "/dev/random", "/dev/tty", "/dev/ptmx", "/dev/fuse", "/dev/net/tun"),
    *("/dev/stdin", "/dev/fd/0", "/dev/fd/3", "/proc/self/fd/0", "/proc/self/fd/3", "/proc/thread-self/fd/4"),
    *("/.sprite/api.sock", "/.pilot/kernel/proc/version", "/", "//", ".", "..", "/proc/1/cwd", "/tmp/"),
]

NOT_WRITTEN = [
    *("fifo/x", "loop", "host/x", "/etc/shadow", "/etc/passwd", "/dev/null", "/dev/zero", "/dev/sda"),
    *("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/proc/new"),
    *("/sys/kernel/uevent_helper", "/sys/fs/cgroup/pids/cgroup.procs", "/sys/class/net/lo/mtu"),
    *("/.sprite/api.sock", "/.pilot/tini", "/.pilot/new", "/", "//", "/tmp", "/tmp/..", "/proc/self/fd/3"),
]


def test_what_is_not_a_file_of_the_users(server: serving.Server, sprite: Any, fs: Fs) -> None:
    secret = server.data / "token"
    attack(sprite, ODD, str(secret), user="sprite")
    for path in NOT_READ:
        start = time.monotonic()
        full_path = path if path.startswith("/") else f"/home/sprite/{path}"
        answer = fs.read(full_path)
        # The environment of the first process is no secret, and a descriptor may lead to /dev/null.
        assert answer.status_code >= 400 or len(answer.content) < 1 << 20, path
        if answer.status_code >= 400:
            refused(answer)
        assert secret.read_text().strip() not in answer.text and "root:" not in answer.text, path
        listed = fs.list(full_path)
        assert listed.status_code in (200, 400, 403, 404), (path, listed.text)
        assert time.monotonic() - start < AT_ONCE_S, path
    for path in ("/etc/shadow", "/proc/1/root/etc/shadow", "/home/sprite/shadow", "/home/sprite/root"):
        assert fs.read(path).status_code in (403, 404), path
    for path in ("/home/sprite/host", str(secret)):
        assert fs.read(path).status_code == 404, path


def test_what_is_not_for_the_user_to_write(server: serving.Server, sprite: Any, fs: Fs) -> None:
    attack(sprite, ODD, str(server.data), user="sprite")
    state = (
        "sudo cat /etc/shadow /etc/passwd /proc/sys/kernel/core_pattern /proc/1/oom_score_adj; ls -a / /dev"
    )
    before, token = serving.run(sprite, state), (server.data / "token").read_text()
    for path in NOT_WRITTEN:
        start = time.monotonic()
        refused(fs.write(path if path.startswith("/") else f"/home/sprite/{path}", b"evil"))
        assert time.monotonic() - start < AT_ONCE_S, path
    for path in ("/etc/shadow", "/proc/1", "/proc/1/status", "/dev/null", "/sys/kernel", "/.pilot/tini", "/"):
        refused(fs.delete(path, recursive="true"))
        refused(fs.delete(path))
    for path in ("/proc/1/status", "/sys/kernel", "/.pilot/tini", "/", "//", "/tmp/.."):
        refused(fs.delete(path, recursive="true", asRoot="true"))
    assert serving.run(sprite, state) == before
    assert (server.data / "token").read_text() == token


def test_a_file_larger_than_any_disk(server: serving.Server, sprite: Any, fs: Fs) -> None:
    attack(sprite, ODD, str(server.data), user="sprite")
    where = 1 << 40
    assert fs.read("/home/sprite/giant", Range=f"bytes={where}-{where + 3}").content == b"here"
    assert fs.read("/home/sprite/giant", Range="bytes=-2").content == b"\0\0"
    with server.http() as http:
        path = {"path": "/home/sprite/giant"}
        with http.stream("GET", f"/v1/sprites/{sprite.name}/fs/read", params=path) as answer:
            assert int(answer.headers["content-length"]) == 15 << 40
            assert len(next(answer.iter_bytes(1 << 20))) == 1 << 20
    wait_for(lambda: not children_of_files(server, sprite))
    works(server, sprite)


# Races between a check and a use.


SWAP = """
import shutil, threading
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
os.mkdir("/home/sprite/race")
os.chdir("/home/sprite/race")
print("full", flush=True)
swaps = 0
def clear(name):
    if os.path.islink(name):
        os.unlink(name)
    shutil.rmtree(name, ignore_errors=True)
while not over.is_set():
    for place in ("/etc", sys.argv[1], "/proc/1/root/etc", "/root"):
        try:
            clear("spot")
            clear("link")
            os.mkdir("spot")
            for name in ("shadow", "passwd", "secret", "token"):
                with open(f"spot/{name}", "w") as file:
                    file.write("evil")
            os.symlink(place, "link")
        except OSError:
            continue  # the other side was in the middle of something
        for _ in range(1000):
            if libc.renameat2(-100, b"spot", -100, b"link", 2) != 0:
                break  # deleted, whatever it was then
            swaps += 1
print("swapped", swaps, flush=True)
"""


def test_a_directory_that_becomes_a_link_at_the_wrong_moment(
    server: serving.Server, sprite: Any, fs: Fs
) -> None:
    """A program swaps them as fast as it can; nothing is read, written or deleted behind the link that
    the user might not, and nothing of the host at all.
    """
    serving.run(sprite, "echo of-root | sudo tee /root/secret >/dev/null; sudo chmod 700 /root")
    state = (
        "cat /root/secret /etc/shadow /etc/passwd; ls -ld --time-style=+ /etc/* /root/* | cut -d' ' -f1-4,6-"
    )
    state = f'sudo sh -c "{state}"'
    before, token = serving.run(sprite, state), (server.data / "token").read_text()
    race, spot = "/home/sprite/race", "/home/sprite/race/spot"
    # Also as root, only what is below the directory that was named.
    tree = {"path": race, "recursive": True, "asRoot": True}
    attempts: list[Callable[[], httpx.Response]] = [
        *(partial(fs.read, f"{spot}/{name}") for name in ("shadow", "secret", "token")),
        *(partial(fs.write, f"{spot}/{name}", b"evil") for name in ("shadow", "secret", "new")),
        *(partial(fs.delete, f"{spot}/{name}") for name in ("passwd", "secret", "token")),
        partial(fs.list, spot),
        partial(fs.list, race, recursive="true"),
        partial(fs.post, "rename", source=f"{spot}/passwd", dest="/home/sprite/moved"),
        partial(fs.post, "rename", source="/home/sprite/moved", dest=f"{spot}/secret"),
        partial(fs.post, "copy", source=f"{spot}/shadow", dest="/home/sprite/copy"),
        partial(fs.post, "copy", source=race, dest="/home/sprite/all", recursive=True, asRoot=True),
        partial(fs.post, "chmod", mode="0777", **tree),
        partial(fs.post, "chown", uid="sprite", gid="sprite", **tree),
        *[partial(fs.delete, spot, recursive="true", asRoot="true")] * 4,
    ]
    seen: set[int] = set()
    with running(server, sprite.name, SWAP, str(server.data), user="sprite") as swapper:
        wait_for(lambda: swapper.full is not None)
        end = time.monotonic() + RACE_S
        with ThreadPoolExecutor(4) as pool:
            while time.monotonic() < end or not {200, 403, 404} <= seen:
                assert time.monotonic() < end + PATIENCE_S, ("the race was never won by anybody", seen)
                for answer in pool.map(lambda attempt: attempt(), attempts):
                    assert answer.status_code in (200, 400, 403, 404, 409), answer.text
                    assert "of-root" not in answer.text and "root:" not in answer.text
                    assert token not in answer.text and "state.db" not in answer.text
                    seen.add(answer.status_code)
    swaps = next(int(line.split()[1]) for line in swapper.words if line.startswith("swapped"))
    assert swaps > 1000
    assert serving.run(sprite, state) == before
    # What was copied, not what a copied link names.
    copies = serving.run(sprite, "sudo find all copy moved -type f -exec cat {} +", check=False)
    assert "evil" in copies and "of-root" not in copies and "root:" not in copies
    assert (server.data / "token").read_text() == token
