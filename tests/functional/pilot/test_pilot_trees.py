"""Renaming, copying, changing modes and owners, and writing through links."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pilot_client import Pilot
from pilot_inside import Inside

HOME = "/home/sprite"
USER = 1001


class Fs:
    """The file endpoints, and hands past them."""

    def __init__(self, http: httpx.Client, pilot: Pilot) -> None:
        self.http = http
        self.do = Inside(pilot).do

    def post(self, op: str, **body: Any) -> httpx.Response:
        return self.http.post(f"/fs/{op}", json=body)

    def write(self, path: str, content: bytes = b"", **query: str) -> httpx.Response:
        return self.http.put("/fs/write", params={"path": path, **query}, content=content)

    def read(self, path: str, **query: str) -> bytes:
        return self.http.get("/fs/read", params={"path": path, **query}).content

    def names(self, path: str, **query: str) -> list[str]:
        listed = self.http.get("/fs/list", params={"path": path, "asRoot": "true", **query}).json()
        return sorted(entry["name"] for entry in listed["entries"])

    def stat(self, path: str) -> os.stat_result:
        return self.do(lambda: os.lstat(path))

    def info(self, path: str) -> tuple[int, int, str]:
        """Owner, group and mode."""
        found = self.stat(path)
        return found.st_uid, found.st_gid, f"{found.st_mode & 0o7777:04o}"

    def link(self, to: str, path: str) -> None:
        self.do(lambda: os.symlink(to, path))

    def target(self, path: str) -> str:
        return self.do(lambda: os.readlink(path))

    def make(self, path: str, content: bytes = b"", *, uid: int = USER, mode: int = 0o644) -> None:
        def work() -> None:
            Path(path).write_bytes(content)
            os.chown(path, uid, uid)
            Path(path).chmod(mode)

        self.do(work)


@pytest.fixture
def fs(http: httpx.Client, pilot: Pilot) -> Iterator[Fs]:
    found = Fs(http, pilot)
    yield found
    for place in (HOME, "/tmp"):
        for name in found.names(place):
            http.delete(
                "/fs/delete", params={"path": f"{place}/{name}", "recursive": "true", "asRoot": "true"}
            )


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text


# Rename


def test_rename_replaces(fs: Fs) -> None:
    fs.write(f"{HOME}/a", b"new")
    fs.write(f"{HOME}/b", b"old")
    answer = fs.post("rename", source="a", dest="b", workingDir=HOME)
    assert answer.json() == {"source": f"{HOME}/a", "dest": f"{HOME}/b"}
    assert fs.names(HOME) == ["b"] and fs.read(f"{HOME}/b") == b"new"


def test_rename_of_a_directory(fs: Fs) -> None:
    fs.write(f"{HOME}/d/e/f", b"x")
    assert fs.post("rename", source=f"{HOME}/d", dest=f"{HOME}/n").status_code == 200
    assert fs.read(f"{HOME}/n/e/f") == b"x"
    fs.write(f"{HOME}/full/x")
    refused(fs.post("rename", source=f"{HOME}/n", dest=f"{HOME}/full"), 409, "ENOTEMPTY")
    refused(fs.post("rename", source=f"{HOME}/n", dest=f"{HOME}/n/inside"), 400, "EINVAL")


def test_rename_of_what_is_not_there(fs: Fs) -> None:
    answer = fs.post("rename", source=f"{HOME}/none", dest=f"{HOME}/b")
    refused(answer, 404, "ENOENT")
    assert answer.json()["path"] == f"{HOME}/none"
    fs.write(f"{HOME}/a")
    answer = fs.post("rename", source=f"{HOME}/a", dest=f"{HOME}/no/where")
    refused(answer, 404, "ENOENT")
    refused(fs.post("rename", source="/", dest=f"{HOME}/x", asRoot=True), 409, "EBUSY")
    refused(fs.post("rename", source=f"{HOME}/..", dest=f"{HOME}/x", asRoot=True), 400, "EINVAL")


def test_rename_to_another_file_system(fs: Fs) -> None:
    """/tmp is another one in every sprite, and a program like mv does not mind."""
    fs.write(f"{HOME}/d/run.sh", b"#!/bin/sh\n", mode="0755")
    fs.link("run.sh", f"{HOME}/d/link")
    fs.do(lambda: os.utime(f"{HOME}/d/run.sh", (1000, 1000)))
    fs.write("/other/kept")
    assert fs.stat("/other").st_dev != fs.stat(HOME).st_dev
    assert fs.post("rename", source=f"{HOME}/d", dest="/other/d").status_code == 200
    assert fs.names(HOME) == [] and fs.names("/other") == ["d", "kept"]
    assert fs.info("/other/d/run.sh") == (USER, USER, "0755")
    assert fs.stat("/other/d/run.sh").st_mtime == 1000
    assert fs.target("/other/d/link") == "run.sh"
    fs.http.delete("/fs/delete", params={"path": "/other/d", "recursive": "true"})


# Copy


def test_copy_of_a_file(fs: Fs) -> None:
    fs.write(f"{HOME}/a", b"hello", mode="0755")
    answer = fs.post("copy", source="a", dest="b", workingDir=HOME).json()
    assert answer == {
        "copied": [{"source": f"{HOME}/a", "dest": f"{HOME}/b"}],
        "count": 1,
        "totalBytes": 5,
        "source": f"{HOME}/a",
        "dest": f"{HOME}/b",
    }
    assert fs.read(f"{HOME}/b") == b"hello" and fs.info(f"{HOME}/b") == (USER, USER, "0755")
    fs.do(lambda: os.utime(f"{HOME}/a", (1000, 1000)))
    fs.post("copy", source=f"{HOME}/a", dest=f"{HOME}/b")
    assert fs.stat(f"{HOME}/b").st_mtime > 1000
    fs.post("copy", source=f"{HOME}/a", dest=f"{HOME}/c", preserveAttrs=True)
    assert fs.stat(f"{HOME}/c").st_mtime == 1000


def test_copy_of_a_tree(fs: Fs) -> None:
    fs.write(f"{HOME}/d/1/a", b"12345")
    fs.write(f"{HOME}/d/2/b", b"678")
    fs.link("/etc/secret", f"{HOME}/d/link")
    fs.do(lambda: os.mkfifo(f"{HOME}/d/fifo", 0o644))
    refused(fs.post("copy", source=f"{HOME}/d", dest=f"{HOME}/n"), 400, "EISDIR")
    answer = fs.post("copy", source=f"{HOME}/d", dest=f"{HOME}/n", recursive=True).json()
    assert (answer["count"], answer["totalBytes"]) == (7, 8)
    assert {"source": f"{HOME}/d/1/a", "dest": f"{HOME}/n/1/a"} in answer["copied"]
    assert fs.names(f"{HOME}/n", recursive="true") == ["1", "2", "a", "b", "fifo", "link"]
    assert fs.read(f"{HOME}/n/2/b") == b"678"
    assert fs.target(f"{HOME}/n/link") == "/etc/secret", "a link in a tree is copied as one"
    assert fs.info(f"{HOME}/n/1") == (USER, USER, "0755")
    fs.write(f"{HOME}/d/3/c")
    assert fs.post("copy", source=f"{HOME}/d", dest=f"{HOME}/n", recursive=True).status_code == 200
    assert "c" in fs.names(f"{HOME}/n", recursive="true"), "into what is there"


def test_copies_that_make_no_sense(fs: Fs) -> None:
    fs.write(f"{HOME}/d/a", b"x")
    fs.link("d/a", f"{HOME}/link")
    refused(fs.post("copy", source=f"{HOME}/d", dest=f"{HOME}/d/e", recursive=True), 400, "EINVAL")
    refused(fs.post("copy", source="/", dest=f"{HOME}/all", recursive=True), 400, "EINVAL")
    refused(fs.post("copy", source=f"{HOME}/d/a", dest=f"{HOME}/link"), 400, "EINVAL")
    refused(fs.post("copy", source=f"{HOME}/d/a", dest=f"{HOME}/d"), 400, "EISDIR")
    refused(fs.post("copy", source=f"{HOME}/d", dest=f"{HOME}/d/a", recursive=True), 400, "EINVAL")
    refused(fs.post("copy", source=f"{HOME}/none", dest=f"{HOME}/x"), 404, "ENOENT")
    refused(fs.post("copy", source="/etc/secret", dest=f"{HOME}/x"), 403, "EACCES")
    refused(fs.post("copy", source="/odd/special/fifo", dest=f"{HOME}/x"), 400, "EINVAL")
    assert fs.read(f"{HOME}/d/a") == b"x"


def test_holes_stay_holes(fs: Fs) -> None:
    fs.make(f"{HOME}/sparse")

    def end() -> None:
        with open(f"{HOME}/sparse", "r+b") as file:
            file.seek(3 << 30)
            file.write(b"end")

    fs.do(end)
    answer = fs.post("copy", source=f"{HOME}/sparse", dest=f"{HOME}/copy").json()
    assert answer["totalBytes"] == (3 << 30) + 3
    assert fs.stat(f"{HOME}/copy").st_blocks * 512 < 1 << 20
    assert (
        fs.http.get("/fs/read", params={"path": f"{HOME}/copy"}, headers={"Range": "bytes=-4"}).content
        == b"\0end"
    )


# Modes and owners


def test_chmod(fs: Fs) -> None:
    fs.write(f"{HOME}/d/e/a")
    answer = fs.post("chmod", path="d/e/a", workingDir=HOME, mode="0700").json()
    assert answer == {
        "path": f"{HOME}/d/e/a",
        "mode": "0700",
        "affected": [{"path": f"{HOME}/d/e/a", "mode": "0700"}],
        "count": 1,
    }
    assert fs.info(f"{HOME}/d/e/a")[2] == "0700"
    assert fs.post("chmod", path=f"{HOME}/d", mode="0000", recursive=True).json()["count"] == 3
    assert fs.info(f"{HOME}/d/e")[2] == "0000"
    assert fs.post("chmod", path=f"{HOME}/d", mode="0755", recursive=True).json()["count"] == 3
    refused(fs.post("chmod", path="/etc/team", mode="0777"), 403, "EPERM")
    refused(fs.post("chmod", path=f"{HOME}/none", mode="0777"), 404, "ENOENT")
    assert fs.post("chmod", path="/etc/secret", mode="0604", asRoot=True).status_code == 200
    assert fs.post("chmod", path="/etc/secret", mode="0600", asRoot=True).status_code == 200
    for body in ({"path": "/x"}, {"path": "/x", "mode": 755}, {"path": "/x", "mode": "9"}, {"mode": "0755"}):
        assert fs.post("chmod", **body).status_code == 400


def test_chmod_of_a_tree_leaves_what_links_point_to(fs: Fs) -> None:
    fs.write(f"{HOME}/d/a")
    fs.link("/etc/secret", f"{HOME}/d/link")
    assert fs.post("chmod", path=f"{HOME}/d", mode="0777", recursive=True, asRoot=True).json()["count"] == 2
    assert fs.info("/etc/secret")[2] == "0600"
    fs.link("d/a", f"{HOME}/top")
    fs.post("chmod", path=f"{HOME}/top", mode="0711")
    assert fs.info(f"{HOME}/d/a")[2] == "0711", "one that is named is followed"


def test_chown(fs: Fs) -> None:
    fs.write(f"{HOME}/d/a")
    fs.link("/etc/secret", f"{HOME}/d/link")
    answer = fs.post("chown", path="d", workingDir=HOME, uid="root", gid="team", recursive=True, asRoot=True)
    assert (answer.json()["count"], answer.json()["uid"], answer.json()["gid"]) == (3, 0, 2000)
    assert {"path": f"{HOME}/d/a", "uid": 0, "gid": 2000} in answer.json()["affected"]
    assert fs.info(f"{HOME}/d/a")[:2] == fs.info(f"{HOME}/d/link")[:2] == (0, 2000)
    assert fs.info("/etc/secret")[:2] == (0, 0)
    only = fs.post("chown", path=f"{HOME}/d", uid=USER, asRoot=True).json()
    assert (only["uid"], only["gid"]) == (USER, 2000)
    refused(fs.post("chown", path=f"{HOME}/d", uid=0), 403, "EPERM")
    refused(fs.post("chown", path=f"{HOME}/d", uid="nobody-here", asRoot=True), 400, "EINVAL")
    for value in (-1, 1 << 32, (1 << 32) - 1, 10**40, "a:b", "", True, 1.5, []):
        answer = fs.post("chown", path=f"{HOME}/d", uid=value, asRoot=True)
        assert answer.status_code == 400, (value, answer.text)
    assert fs.post("chown", path=f"{HOME}/d", asRoot=True).status_code == 400


# Writing as a program inside would


def test_writing_through_a_link_writes_its_target(fs: Fs) -> None:
    fs.make(f"{HOME}/target", b"old", mode=0o600)
    for link, to in (("one", "target"), ("two", f"{HOME}/one"), ("up", "../sprite/target")):
        fs.link(to, f"{HOME}/{link}")
        assert fs.write(f"{HOME}/{link}", link.encode()).json()["mode"] == "0600"
        assert fs.stat(f"{HOME}/{link}").st_mode & 0o170000 == 0o120000
        assert fs.read(f"{HOME}/target") == link.encode()
    fs.link("made", f"{HOME}/nowhere")
    fs.write(f"{HOME}/nowhere", b"x")
    assert fs.read(f"{HOME}/made") == b"x"
    refused(fs.write("/odd/links/loop"), 400, "ELOOP")
    fs.link("/etc", f"{HOME}/etc")
    refused(fs.write(f"{HOME}/etc"), 400, "EISDIR")
    refused(fs.write(f"{HOME}/etc/new"), 403, "EACCES")
    fs.link("..", f"{HOME}/dots")
    refused(fs.write(f"{HOME}/dots"), 400, "EISDIR")


def test_an_existing_file_keeps_owner_mode_and_attributes(fs: Fs) -> None:
    fs.make(f"{HOME}/a", b"old", uid=0, mode=0o666)
    fs.do(lambda: os.setxattr(f"{HOME}/a", "user.note", b"kept"))
    assert fs.write(f"{HOME}/a", b"new", mode="0644").json()["mode"] == "0666"
    assert (fs.info(f"{HOME}/a"), fs.read(f"{HOME}/a")) == ((0, 0, "0666"), b"new")
    assert fs.do(lambda: os.getxattr(f"{HOME}/a", "user.note")) == b"kept"
    fs.make(f"{HOME}/run.sh", b"", mode=0o755)
    fs.write(f"{HOME}/run.sh", b"echo", mode="0644")
    assert fs.info(f"{HOME}/run.sh")[2] == "0755", "clients send the default without having been asked"
    fs.write(f"{HOME}/run.sh", b"echo", mode="0700")
    assert fs.info(f"{HOME}/run.sh")[2] == "0700"
    fs.make(f"{HOME}/s", b"", mode=0o4755)
    fs.write(f"{HOME}/s", b"x")
    assert fs.info(f"{HOME}/s")[2] == "0755", "as a write(2) takes it away"
    assert fs.write(f"{HOME}/a", b"root's", asRoot="true").status_code == 200
    assert fs.info(f"{HOME}/run.sh")[:2] == (USER, USER)


def test_rights_are_those_of_the_file_not_of_its_directory(fs: Fs) -> None:
    fs.make("/etc/mine", b"old", uid=USER)
    assert fs.write("/etc/mine", b"new").status_code == 200
    assert fs.read("/etc/mine") == b"new" and fs.info("/etc/mine") == (USER, USER, "0644")
    assert [name for name in fs.do(lambda: os.listdir("/etc")) if name.startswith(".")] == []
    fs.make(f"{HOME}/locked", b"old", mode=0o444)
    refused(fs.write(f"{HOME}/locked", b"new"), 403, "EACCES")
    fs.make("/tmp/roots", b"old", uid=0)
    refused(fs.write("/tmp/roots", b"new"), 403, "EACCES")
    fs.do(lambda: os.unlink("/etc/mine"))


def test_what_is_no_regular_file_is_not_replaced(fs: Fs) -> None:
    fs.do(lambda: os.mkfifo(f"{HOME}/fifo", 0o644))
    refused(fs.write(f"{HOME}/fifo", b"x", asRoot="true"), 400, "EINVAL")
    refused(fs.write("/odd/special/socket", b"x", asRoot="true"), 400, "EINVAL")


def test_long_names_of_many_bytes(fs: Fs) -> None:
    name = "\N{SNOWMAN}" * 85
    assert fs.write(f"{HOME}/{name}", b"x").status_code == 200
    assert fs.post("copy", source=f"{HOME}/{name}", dest=f"/tmp/{name}").status_code == 200
    assert fs.read(f"/tmp/{name}") == b"x"


def test_nothing_temporary_is_left(fs: Fs) -> None:
    fs.write(f"{HOME}/a", b"x")
    fs.post("copy", source=f"{HOME}/a", dest="/private/a")
    fs.post("rename", source=f"{HOME}/a", dest="/private/a")
    assert fs.names(HOME) == ["a"] and fs.names("/private") == []


# Reading as a program inside would


def test_a_link_that_is_named_is_followed_by_stat(fs: Fs) -> None:
    fs.make(f"{HOME}/target", b"12345", mode=0o600)
    fs.link("target", f"{HOME}/link")
    listed = fs.http.get("/fs/list", params={"path": f"{HOME}/link"}).json()["entries"]
    assert [(e["name"], e["type"], e["size"], e["mode"]) for e in listed] == [("link", "file", 5, "0600")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py", "b.py", "c.py"]),
        ("s/*.py", ["b.py"]),
        ("**/*.py", ["a.py", "b.py", "c.py"]),
        ("s/**", ["b.py", "c.py", "s", "t"]),
        ("s/**/*.py", ["b.py", "c.py"]),
        ("*/t/c.??", ["c.py"]),
        ("[ab].py", ["a.py", "b.py"]),
        ("none", []),
        ("*" * 900, ["a.py", "b.py", "c.py", "s", "t", "x.txt"]),
    ],
)
def test_patterns(fs: Fs, pattern: str, found: list[str]) -> None:
    for path in ("a.py", "s/b.py", "s/t/c.py", "x.txt"):
        fs.write(f"{HOME}/{path}")
    assert fs.names(HOME, recursive="true", pattern=pattern) == found


def test_a_link_that_the_kernel_does_not_follow_is_not_followed(fs: Fs) -> None:
    """In a directory like /tmp it does not follow a stranger's, for whom it would be a trap."""

    def make() -> bool:
        os.chown("/tmp", 0, 0)
        os.symlink(f"{HOME}/trap", "/tmp/link")
        os.chown("/tmp/link", 2000, 2000, follow_symlinks=False)
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        try:
            os.close(os.open("/tmp/link", os.O_WRONLY | os.O_CREAT))
        except PermissionError:
            return False
        return True

    followed = fs.do(make)
    answer = fs.write("/tmp/link", b"x")
    assert (answer.status_code == 200) is followed, answer.text
