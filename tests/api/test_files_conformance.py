"""Files, row by row of the API's reference, by the clients that are published."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client as websockets
from sprites.exceptions import (
    DirectoryNotEmptyError,
    FileNotFoundError_,
    FilesystemError,
    IsADirectoryError_,
    NotADirectoryError_,
    PermissionError_,
)
from websockets.exceptions import ConnectionClosed

import nodejs
import serving
from proof import JAVASCRIPT, PLAIN, PYTHON, proves

HOME = "/home/sprite"
GIGABYTE = 1 << 30


@pytest.fixture
def place(shared: Any) -> Iterator[str]:
    """An empty directory of the user."""
    serving.run(shared, "rm -rf ~/place; mkdir ~/place")
    yield f"{HOME}/place"
    serving.run(shared, "sudo rm -rf ~/place")


@pytest.fixture
def http(server: serving.Server, shared: Any) -> Iterator[httpx.Client]:
    """The file endpoints of the shared sprite."""
    headers = {"Authorization": f"Bearer {server.token}"}
    base = f"{server.url}/v1/sprites/{shared.name}/fs"
    with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
        yield client


# Reading and writing


@proves("fs/read and fs/write", PYTHON)
def test_read_and_write_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    data = os.urandom(3 << 20)
    (files / "deep/er/data").write_bytes(data)
    assert (files / "deep/er/data").read_bytes() == data
    (files / "text").write_text("hällo", mode=0o600)
    assert (files / "text").read_text() == "hällo"
    assert (
        serving.run(shared, f"stat -c '%U %G %a' {place}/text {place}/deep")
        == "sprite sprite 600\nsprite sprite 755"
    )
    (files / "empty").touch()
    assert (files / "empty").read_bytes() == b""
    for name in ("ä ö", "a%2Fb", '"', "x" * 255, "-rf", "*", "#?&=", "a\nb"):
        (files / "names" / name).write_text(name)
        assert (files / "names" / name).read_text() == name
    assert len((files / "names").listdir()) == 8


@proves("fs/read and fs/write", JAVASCRIPT)
def test_read_and_write_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        const data = Buffer.alloc(2_000_000, "0123456789");
        await fs.writeFile("deep/er/data", data, {mode: 0o600});
        say((await fs.readFile("deep/er/data")).equals(data));
        await fs.writeFile("text", "hällo");
        await fs.appendFile("text", " und mehr");
        say(await fs.readFile("text", "utf8"));
        await fs.writeJSON("json", {a: [1]});
        say(await fs.readJSON("json"));
        say((await fs.stat("deep/er/data")).mode.toString(8));
    """
    assert nodejs.run(server, shared, script, place=place) == [True, "hällo und mehr", {"a": [1]}, "600"]


@proves("fs/read: Range", PLAIN)
def test_ranges(http: httpx.Client, place: str) -> None:
    http.put("/write", params={"path": f"{place}/a"}, content=b"0123456789")
    for wanted, status, content in (
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
    ):
        answer = http.get("/read", params={"path": f"{place}/a"}, headers={"Range": wanted})
        assert (answer.status_code, answer.content) == (status, content), wanted
    answer = http.get("/read", params={"path": f"{place}/a"}, headers={"Range": "bytes=2-4"})
    assert answer.headers["content-range"] == "bytes 2-4/10"
    answer = http.get("/read", params={"path": f"{place}/a"}, headers={"Range": "bytes=10-"})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert "10 bytes" in answer.json()["error"]


@proves("fs/read: files of /proc and /sys, whose size says nothing", PYTHON)
def test_pseudo_files(shared: Any, http: httpx.Client) -> None:
    files = shared.filesystem("/")
    for path in (
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/version",
        "/proc/filesystems",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ):
        with contextlib.suppress(FileNotFoundError_):  # not every host has huge pages
            text = (files / path).read_text()
            assert text and text.split()[0] == serving.run(shared, f"cat {path}").split()[0], path
    mounts = [line.split()[:3] for line in (files / "/proc/mounts").read_text().splitlines()]
    # Not the options: those of autofs name a process, by its number in the reader's namespace.
    assert mounts == [line.split()[:3] for line in serving.run(shared, "cat /proc/mounts").splitlines()]
    assert "tini" in (files / "/proc/self/comm").read_text()
    assert "Inter-" in (files / "/proc/net/dev").read_text()
    answer = http.get("/read", params={"path": "/proc/version"}, headers={"Range": "bytes=0-4"})
    assert (answer.status_code, answer.content) == (206, b"Linux")


@proves("fs/write: mkdirParents and mkdir", PLAIN)
def test_parents(http: httpx.Client, place: str) -> None:
    for name in ("mkdirParents", "mkdir"):
        assert http.put("/write", params={"path": f"{place}/{name}/1/2/a", name: "true"}).status_code == 200
        answer = http.put("/write", params={"path": f"{place}/{name}/x/y/a", name: "false"})
        assert (answer.status_code, answer.json()["code"]) == (404, "ENOENT")


@proves("fs/write: through a link, with owner and mode of the target", PYTHON)
def test_links(shared: Any, place: str) -> None:
    serving.run(
        shared, f"cd {place}; echo old > target; chmod 755 target; ln -s target link; ln -s new dangling"
    )
    files = shared.filesystem(place)
    (files / "link").write_text("new")
    assert (
        serving.run(shared, f"cd {place}; readlink link; cat target; stat -c %a target") == "target\nnew755"
    )
    (files / "dangling").write_text("made")
    assert (files / "new").read_text() == "made"
    serving.run(shared, f"cd {place}; sudo sh -c 'echo x > roots; chmod 666 roots'")
    (files / "roots").write_text("mine")
    assert serving.run(shared, f"cd {place}; stat -c '%U %a' roots; cat roots") == "root 666\nmine"
    serving.run(shared, "echo x | sudo tee /etc/mine; sudo chown sprite /etc/mine")
    shared.filesystem("/etc").path("mine").write_text("y")
    assert serving.run(shared, "cat /etc/mine; stat -c %U /etc/mine; sudo rm /etc/mine") == "ysprite"


@proves("fs/write: never half a file", PLAIN)
def test_a_reader_sees_whole_files_only(shared: Any, http: httpx.Client, place: str) -> None:
    path = f"{place}/a"
    http.put("/write", params={"path": path}, content=b"0" * 1_000_000)
    script = f"for i in $(seq 300); do wc -c < {path}; done | sort -u"
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(serving.run(shared, script)))
    reader.start()
    number = 0
    while reader.is_alive():
        number += 1
        size = 1_000_000 if number % 2 else 2_000_000
        http.put("/write", params={"path": path}, content=b"x" * size)
    reader.join()
    assert set(seen[0].split()) <= {"1000000", "2000000"} and number > 3


@proves("fs: 5 GB with constant memory", PLAIN)
@pytest.mark.slow
def test_five_gigabytes(server: serving.Server, shared: Any, http: httpx.Client, place: str) -> None:
    if os.statvfs(server.data).f_bavail * os.statvfs(server.data).f_frsize < 30 * GIGABYTE:
        pytest.skip("needs 30 GB of free disk space")
    most = _Most(server, shared)
    piece = bytes(1 << 20)
    size = 5 * GIGABYTE
    with most:
        answer = http.put(
            "/write", params={"path": f"{place}/big"}, content=(piece for _ in range(size >> 20)), timeout=600
        )
        assert answer.json()["size"] == size
        with http.stream("GET", "/read", params={"path": f"{place}/big"}, timeout=600) as reading:
            assert int(reading.headers["content-length"]) == size
            assert sum(len(part) for part in reading.iter_raw()) == size
    assert most.grown < 64 << 20, most.grown
    assert serving.run(shared, f"stat -c %s {place}/big") == str(size)


class _Most:
    """How much the server's and the sprite's pilot processes grow while the block lasts."""

    def __init__(self, server: serving.Server, sprite: Any) -> None:
        self._server = server
        self._names = (f"pilot:{sprite.name}", "pilot:files")
        self._before = self._resident()
        self._done = threading.Event()
        self.grown = 0
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.2):
            self.grown = max(self.grown, self._resident() - self._before)

    def _resident(self) -> int:
        return sum(map(_anonymous, [self._server.pid, *_processes(self._server.instance, self._names)]))


def _anonymous(pid: int) -> int:
    """Bytes of memory that are a process's own; 0 of one that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) << 10
    return 0


def _processes(instance: str, names: tuple[str, ...]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and instance in (entry / "cgroup").read_text():
                if (entry / "comm").read_text().strip() in names:
                    found.append(int(entry.name))
    return found


# Directories


@proves("fs/list: a directory in Python is_dir, exists, iterdir, mkdir(exist_ok)", PYTHON)
def test_directories_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    for name, content in (("full", ["a", "b"]), ("empty", [])):
        directory = files / name
        assert not directory.exists() and not directory.is_dir()
        directory.mkdir()
        directory.mkdir(exist_ok=True)
        for child in content:
            (directory / child).write_text(child)
        assert directory.exists() and directory.is_dir() and not directory.is_file()
        assert sorted(directory.listdir()) == content
        assert [entry.is_file() for entry in directory.iterdir()] == [True] * len(content)
        stat = directory.stat()
        assert stat.is_dir and stat.mode == "0755"
    (files / "1/2/3").mkdir(parents=True)
    with pytest.raises(FileNotFoundError_):
        (files / "x/y/z").mkdir()
    file = files / "full/a"
    assert file.exists() and file.is_file() and not file.is_dir()
    assert (file.stat().size, file.stat().mode, file.stat().name) == (1, "0644", "a")
    with pytest.raises(FilesystemError):
        file.mkdir(exist_ok=True)
    serving.run(shared, f"cd {place}; ln -s full link; ln -s full/a file-link; ln -s none broken")
    assert (files / "link").is_dir() and (files / "file-link").stat().size == 1
    assert not (files / "broken").exists()


@proves("fs/list: readdir, stat of files, recursive, pattern", JAVASCRIPT)
def test_directories_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.mkdir("d/e", {recursive: true});
        await fs.writeFile("d/a.txt", "12345");
        await fs.writeFile("d/e/b.txt", "");
        say(await fs.readdir("d/e"));
        say((await fs.readdir("d")).sort());
        say((await fs.readdir(".", {recursive: true})).sort());
        say((await fs.readdir(".", {recursive: true, pattern: "*.txt"})).sort());
        say((await fs.readdir("d", {withFileTypes: true})).map((e) => [e.name, e.isFile(), e.isDirectory()]).sort());
        await fs.rm("d/e/b.txt");
        say(await fs.readdir("d/e"));
        const stat = await fs.stat("d/a.txt");
        say([stat.size, stat.isFile(), stat.isDirectory(), stat.mtime instanceof Date && stat.mtime > 0]);
        say([await fs.exists("d/a.txt"), await fs.exists("none")]);
    """
    assert nodejs.run(server, shared, script, place=place) == [
        ["b.txt"],
        ["a.txt", "e"],
        ["a.txt", "b.txt", "d", "e"],
        ["a.txt", "b.txt"],
        [["a.txt", True, False], ["e", False, True]],
        [],
        [5, True, False, True],
        [True, False],
    ]


@proves("fs/list: children only for all but sprites-py", PLAIN)
def test_listing_by_client(http: httpx.Client, shared: Any, place: str) -> None:
    serving.run(shared, f"touch {place}/a; mkdir {place}/empty")

    def names(agent: str, path: str = place, **query: str) -> list[str]:
        answer = http.get("/list", params={"path": path, **query}, headers={"User-Agent": agent}).json()
        assert answer["count"] == len(answer["entries"]) and answer["path"] == path
        return [entry["name"] for entry in answer["entries"]]

    for agent in ("node", "sprites-go-sdk/1.0", "curl/8"):
        assert names(agent) == ["a", "empty"] and names(agent, f"{place}/empty") == []
    assert names("sprites-py/0.7.2") == ["", "a", "empty"]
    assert names("sprites-py/0.7.2", f"{place}/a") == ["a"]
    assert names("sprites-py/0.7.2", recursive="true") == ["a", "empty"]
    [entry] = http.get("/list", params={"path": f"{place}/a"}).json()["entries"]
    assert set(entry) == {"name", "path", "type", "size", "mode", "modTime", "isDir"}


# Deleting, moving, copying, rights


@proves("fs/delete", PYTHON)
def test_delete_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    (files / "d/e/a").write_text("x")
    with pytest.raises(DirectoryNotEmptyError):
        (files / "d").rmdir()
    (files / "d/e/a").unlink()
    (files / "d/e").rmdir()
    (files / "d/x/y").write_text("x")
    (files / "d").rmtree()
    assert (files / ".").listdir() == []
    with pytest.raises(FileNotFoundError_):
        (files / "none").unlink()
    (files / "none").unlink(missing_ok=True)


@proves("fs/delete", JAVASCRIPT)
def test_delete_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.writeFile("d/a", "x");
        say(await fails(fs.rm("d")));
        await fs.rm("d", {recursive: true});
        await fs.rm("none", {force: true});
        say(await fails(fs.rm("/etc/hostname")));
        await fs.writeFile("roots", "x");
        await fs.chown("roots", {uid: "root", asRoot: true});
        await fs.rm("roots", {asRoot: true});
        say(await fs.readdir("."));
    """
    notempty, denied, left = nodejs.run(server, shared, script, place=place)
    assert "not empty" in notempty and "denied" in denied and left == []


@proves("fs/delete: parameters in a JSON body", PLAIN)
def test_delete_by_body(http: httpx.Client, shared: Any, place: str) -> None:
    serving.run(shared, f"mkdir -p {place}/d/e")
    body = {"path": "d", "workingDir": place, "recursive": True}
    answer = http.request("DELETE", "/delete", json=body)
    assert answer.json() == {"deleted": [f"{place}/d"], "count": 1}


@proves("fs/rename, replacing what is there, also to /tmp", PYTHON)
def test_rename_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    (files / "a").write_text("a")
    (files / "b").write_text("b")
    moved = (files / "a").rename("b")
    assert str(moved) == f"{place}/b" and moved.read_text() == "a" and not (files / "a").exists()
    (files / "d/e").write_text("x")
    moved = (files / "d").rename("/tmp/moved")
    assert (moved / "e").read_text() == "x" and not (files / "d").exists()
    serving.run(shared, "stat -c %U /tmp/moved/e; ls -A /tmp; rm -r /tmp/moved")
    with pytest.raises(FileNotFoundError_):
        (files / "none").rename("x")


@proves("fs/rename, replacing what is there, also to /tmp", JAVASCRIPT)
def test_rename_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.writeFile("a", "a");
        await fs.rename("a", "/tmp/js");
        await fs.rename("/tmp/js", "b");
        say([await fs.readFile("b", "utf8"), await fs.exists("a")]);
        say(await fails(fs.rename("none", "x")));
    """
    moved, error = nodejs.run(server, shared, script, place=place)
    assert moved == ["a", False] and "no such file" in error


@proves("fs/copy", PYTHON)
def test_copy_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    (files / "d/e/a").write_text("a")
    serving.run(shared, f"chmod 700 {place}/d/e/a; ln -s a {place}/d/e/link")
    assert ((files / "d").copy_to("n") / "e/a").read_text() == "a"
    assert serving.run(shared, f"cd {place}/n/e; stat -c '%a %U' a; readlink link") == "700 sprite\na"
    with pytest.raises(IsADirectoryError_):
        (files / "d").copy_to("m", recursive=False)
    with pytest.raises(FileNotFoundError_):
        (files / "none").copy_to("m")


@proves("fs/copy", JAVASCRIPT)
def test_copy_javascript(server: serving.Server, shared: Any, place: str) -> None:
    serving.run(shared, f"cd {place}; echo a > a; touch -d 2001-01-01 a")
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.copyFile("a", "b");
        await fs.copyFile("a", "c", {preserveAttrs: true});
        say((await fs.stat("b")).mtime > (await fs.stat("a")).mtime);
        say((await fs.stat("c")).mtime.getTime() === (await fs.stat("a")).mtime.getTime());
        say(await fails(fs.copyFile(".", "/tmp/x")));
        await fs.copyFile("a", "/etc/copied", {asRoot: true});
        await fs.rm("/etc/copied", {asRoot: true});
    """
    assert nodejs.run(server, shared, script, place=place) == [True, True, "is a directory"]


@proves("fs: workingDir, / if not given", PYTHON)
def test_working_directory_python(shared: Any, place: str) -> None:
    (shared.filesystem(place) / "here").write_text("here")
    assert (shared.filesystem("/") / place.lstrip("/") / "here").read_text() == "here"
    assert shared.filesystem().path("etc/hostname").read_text().strip() == serving.run(shared, "hostname")


@proves("fs: workingDir, / if not given", JAVASCRIPT)
@proves("fs: asRoot", JAVASCRIPT)
def test_working_directory_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        await sprite.filesystem(args.place).writeFile("here", "here");
        say(await sprite.filesystem("/").readFile(args.place.slice(1) + "/here", "utf8"));
        say(await fails(sprite.filesystem("/etc").copyFile("hostname", "copied")));
        await sprite.filesystem("/etc").copyFile("hostname", "copied", {asRoot: true});
        await sprite.filesystem("/etc").rename("copied", "moved", {asRoot: true});
        await sprite.filesystem("/etc").chmod("moved", 0o600, {asRoot: true});
        say((await sprite.execFile("stat", ["-c", "%U %a", "/etc/moved"])).stdout.trim());
        await sprite.filesystem("/etc").rm("moved", {asRoot: true});
    """
    here, refused, stat = nodejs.run(server, shared, script, place=place)
    assert (here, stat) == ("here", "root 600") and "denied" in refused


@proves("fs/chmod", PYTHON)
def test_chmod_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    (files / "d/a").write_text("a")
    (files / "d/a").chmod(0o700)
    assert (files / "d/a").stat().mode == "0700"
    (files / "d").chmod(0o711, recursive=True)
    assert serving.run(shared, f"stat -c %a {place}/d {place}/d/a") == "711\n711"
    with pytest.raises(FilesystemError) as refused:
        shared.filesystem("/etc").path("passwd").chmod(0o777)
    assert "EPERM" in str(refused.value) or "not permitted" in str(refused.value).lower()


@proves("fs/chmod", JAVASCRIPT)
@proves("fs/chown by id and by name", JAVASCRIPT)
def test_rights_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.writeFile("d/a", "a");
        await fs.chmod("d/a", 0o640);
        say((await fs.stat("d/a")).mode.toString(8));
        await fs.chown("d", {uid: "root", gid: 1001, recursive: true, asRoot: true});
        say((await sprite.execFile("stat", ["-c", "%U %g", `${args.place}/d`, `${args.place}/d/a`])).stdout);
        say(await fails(fs.chown("d", {uid: 0})));
        say(await fails(fs.chown("d", {uid: "nobody-here", asRoot: true})));
    """
    mode, owners, denied, unknown = nodejs.run(server, shared, script, place=place)
    assert (mode, owners) == ("640", "root 1001\nroot 1001\n")
    assert "not permitted" in denied and "nobody-here" in unknown


# Errors


@proves("fs: error codes", PYTHON)
def test_errors_python(shared: Any, place: str) -> None:
    files = shared.filesystem(place)
    (files / "file").write_text("x")
    with pytest.raises(FileNotFoundError_):
        (files / "none").read_bytes()
    with pytest.raises(IsADirectoryError_):
        (files / ".").read_bytes()
    with pytest.raises(IsADirectoryError_):
        (files / ".").write_bytes(b"")
    with pytest.raises(NotADirectoryError_):
        (files / "file/below").read_bytes()
    with pytest.raises(PermissionError_):
        (files / "/etc/shadow").read_bytes()
    with pytest.raises(PermissionError_):
        (files / "/etc/new").write_bytes(b"")


@proves("fs: error codes", JAVASCRIPT)
def test_errors_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.writeFile("file", "x");
        const code = async (work) => { try { await work; } catch (error) { return [error.code, error.path, error.syscall]; } };
        say(await code(fs.readFile("none")));
        say((await code(fs.readFile(".")))[0]);
        say((await code(fs.readFile("file/below")))[0]);
        say((await code(fs.readFile("/etc/shadow")))[0]);
        say((await code(fs.chmod("/etc/passwd", 0o777)))[0]);
        await fs.mkdir("d/e", {recursive: true});
        say((await code(fs.rm("d")))[0]);
        say((await code(fs.copyFile("d", "d/e/f", {recursive: true})))[0]);
        say((await code(fs.stat("none")))[0]);
    """
    first, *rest = nodejs.run(server, shared, script, place=place)
    assert first == ["ENOENT", f"{place}/none", "read"]
    assert rest == ["EISDIR", "ENOTDIR", "EACCES", "EPERM", "ENOTEMPTY", "EINVAL", "ENOENT"]


@proves("fs: a file system that hangs blocks nobody else", PLAIN)
def test_a_hung_file_system(server: serving.Server, shared: Any, http: httpx.Client, place: str) -> None:
    """A FUSE mount whose program never answers."""
    program = f"""
import ctypes, os, sys, time
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={{fd}},rootmode=40000,user_id=0,group_id=0,allow_other"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"hung", b"{place}/hung", b"fuse", 0, options.encode()) != 0:
    sys.exit(f"mount: {{os.strerror(ctypes.get_errno())}}")
print("mounted", flush=True)
time.sleep(600)
"""
    serving.run(shared, f"mkdir {place}/hung; touch {place}/fine")
    if serving.run(shared, "test -c /dev/fuse && echo yes", check=False) != "yes":
        pytest.skip("needs /dev/fuse on the host")
    path = f"/v1/sprites/{shared.name}/exec"
    query = {"cmd": ["sudo", "python3", "-c", program]}
    stuck: list[socket.socket] = []
    with server.http() as plain, plain.stream("POST", path, params=query) as hanging:
        assert b"mounted" in next(hanging.iter_raw())
        try:
            before = _processes(server.instance, ("pilot:files",))
            for request in (
                f"GET /fs/read?path={place}/hung/file",
                f"GET /fs/list?path={place}/hung",
                f"PUT /fs/write?path={place}/hung/file",
                f"DELETE /fs/delete?path={place}/hung/file",
            ):
                method, rest = request.split(" ")
                stuck.append(_send(server, f"{method} /v1/sprites/{shared.name}{rest}"))
            time.sleep(0.5)
            assert len(_processes(server.instance, ("pilot:files",))) >= len(before) + 4
            for _ in range(10):
                assert http.get("/read", params={"path": f"{place}/fine"}, timeout=5).status_code == 200
            assert serving.run(shared, "echo fine") == "fine"
            for connection in stuck:
                connection.close()
            deadline = time.monotonic() + 20
            while len(_processes(server.instance, ("pilot:files",))) > len(before):
                assert time.monotonic() < deadline, "what hangs is not ended when its client is gone"
                time.sleep(0.2)
        finally:
            serving.run(shared, "sudo umount -l ~/place/hung; sudo pkill -f allow_other", check=False)


def _send(server: serving.Server, request: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = (
        f"{request} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\nContent-Length: 0\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


# Watching


@proves("fs/watch", JAVASCRIPT)
def test_watch_javascript(server: serving.Server, shared: Any, place: str) -> None:
    script = """
        const fs = sprite.filesystem(args.place);
        await fs.writeFile("old", "x");
        const watcher = await fs.watch(".", {recursive: true});
        say(await watcher.next());
        const seen = [];
        const wait = async (event, path) => {
            while (true) {
                const message = await watcher.next();
                seen.push(message);
                if (message.event === event && message.path === `${args.place}/${path}`) return message;
            }
        };
        await fs.writeFile("new", "12345");
        const written = await wait("write", "new");
        say([written.type, written.size, written.isDir, !isNaN(new Date(written.timestamp))]);
        await sprite.execFile("sh", ["-c", `cd ${args.place}; mkdir -p d/e; sleep 0.3; echo x > d/e/f; chmod 600 old; rm old`]);
        await wait("remove", "old");
        say(seen.map((m) => `${m.event} ${m.path.slice(args.place.length + 1)}`));
        await fs.rename("new", "d/moved");
        await wait("create", "d/moved");
        watcher.close();
        const none = await fs.watch("/none");
        say((await none.next()).type);
        none.close();
    """
    subscribed, written, seen, none = nodejs.run(server, shared, script, place=place)
    assert subscribed == {"type": "subscribed", "paths": [place]}
    assert written == ["event", 5, False, True]
    assert seen[:2] == ["create new", "write new"]
    assert {"create d", "create d/e", "create d/e/f", "write d/e/f", "chmod old", "remove old"} <= set(seen)
    assert none == "error"
    assert not any(".part" in each or ".new" in each for each in seen), "nothing of how a write is done"


@proves("fs/watch: a watcher ends with the sprite's processes and says so", PLAIN)
def test_watch_and_restore(server: serving.Server) -> None:
    """A restore takes the mounts away that a watcher looks at."""
    sprite = server.client().create_sprite("watched")
    serving.finished(sprite.create_checkpoint("one"))
    uri = f"{server.url.replace('http', 'ws')}/v1/sprites/watched/fs/watch"
    with websockets.connect(uri, additional_headers={"Authorization": f"Bearer {server.token}"}) as watching:
        watching.send(json.dumps({"type": "subscribe", "paths": [HOME]}))
        assert json.loads(watching.recv(10))["type"] == "subscribed"
        serving.finished(sprite.restore_checkpoint("v1"))
        with pytest.raises(ConnectionClosed):
            watching.recv(10)
        assert watching.close_code == 1001 and "stopped" in (watching.close_reason or "")
    assert serving.run(sprite, "echo on") == "on"
    sprite.delete()
