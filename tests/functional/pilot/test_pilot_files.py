"""Files through the fork server: in namespaces of its own, as the user asked for."""

from __future__ import annotations

import hashlib
import json
import socket as sockets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pilot_client import Pilot

HOME = "/home/sprite"


class Fs:
    """The file endpoints, by short names."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def read(self, path: str, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
        return self._http.get("/fs/read", params={"path": path, **query}, headers=headers)

    def write(self, path: str, content: Any = b"", **query: str) -> httpx.Response:
        return self._http.put("/fs/write", params={"path": path, **query}, content=content)

    def list(self, path: str, agent: str = "test", **query: str) -> httpx.Response:
        return self._http.get("/fs/list", params={"path": path, **query}, headers={"User-Agent": agent})

    def names(self, path: str, **query: str) -> list[str]:
        return sorted(entry["name"] for entry in self.list(path, **query).json()["entries"])

    def delete(self, path: str, **query: str) -> httpx.Response:
        return self._http.delete("/fs/delete", params={"path": path, **query})


@pytest.fixture
def fs(http: httpx.Client) -> Iterator[Fs]:
    found = Fs(http)
    yield found
    for entry in found.list(HOME, asRoot="true").json()["entries"]:
        found.delete(entry["path"], recursive="true", asRoot="true")


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.json()["error"]
    assert "path" in answer.json()


# Writing


def test_what_is_written_is_read(fs: Fs) -> None:
    data = bytes(range(256)) * 5000
    made = fs.write(f"{HOME}/a", data, mode="0640")
    assert made.json() == {"path": f"{HOME}/a", "size": len(data), "mode": "0640"}
    assert fs.read(f"{HOME}/a").content == data
    [entry] = fs.list(f"{HOME}/a").json()["entries"]
    assert (entry["name"], entry["type"], entry["size"]) == ("a", "file", len(data))
    assert (entry["mode"], entry["isDir"]) == ("0640", False)


def test_a_body_of_unknown_length(fs: Fs) -> None:
    assert fs.write(f"{HOME}/a", iter([b"one", b"", b"two" * 100_000])).json()["size"] == 300_003


def test_an_empty_file(fs: Fs) -> None:
    assert fs.write(f"{HOME}/a").json()["size"] == 0
    assert fs.read(f"{HOME}/a").content == b""


def test_relative_paths_start_at_the_working_directory(fs: Fs) -> None:
    fs.write("sub/a", b"x", workingDir=HOME)
    assert fs.read(f"{HOME}/sub/a").content == b"x"
    assert fs.read("a", workingDir=f"{HOME}/sub").content == b"x"


def test_parents(fs: Fs) -> None:
    assert fs.write(f"{HOME}/1/2/3/a", mkdirParents="true").status_code == 200
    assert fs.write(f"{HOME}/x/a", mkdirParents="false").status_code == 200, "one level is made"
    refused(fs.write(f"{HOME}/y/z/a", mkdirParents="false"), 404, "ENOENT")
    refused(fs.write(f"{HOME}/y/z/a", mkdir="false"), 404, "ENOENT")


def test_a_file_is_replaced_whole_and_keeps_its_mode(fs: Fs) -> None:
    fs.write(f"{HOME}/a", b"long old text", mode="0755")
    assert fs.write(f"{HOME}/a", b"new").json()["mode"] == "0755"
    assert fs.read(f"{HOME}/a").content == b"new"


def test_names_that_are_hard_to_write(fs: Fs) -> None:
    for name in ("ä ö", "a%2Fb", "a\nb", '"', "x" * 255, "-rf", "*"):
        assert fs.write(f"{HOME}/{name}", name.encode()).status_code == 200, name
        assert fs.read(f"{HOME}/{name}").content == name.encode()
    assert len(fs.names(HOME)) == 7
    refused(fs.write(f"{HOME}/{'x' * 256}"), 400, "ENAMETOOLONG")


def test_an_upload_broken_off_changes_nothing(pilot: Pilot, fs: Fs) -> None:
    fs.write(f"{HOME}/a", b"old")
    with sockets.socket(sockets.AF_UNIX) as client:
        client.connect(str(pilot.socket))
        client.sendall(
            f"PUT /fs/write?path={HOME}/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nnew".encode()
        )
        time.sleep(0.3)
    time.sleep(0.3)
    assert fs.read(f"{HOME}/a").content == b"old"
    assert fs.names(HOME) == ["a"]


# Reading


@pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=-0"])
def test_ranges_outside(fs: Fs, wanted: str) -> None:
    fs.write(f"{HOME}/a", b"0123456789")
    answer = fs.read(f"{HOME}/a", headers={"Range": wanted})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    said = answer.json()
    assert said["code"] == "ERANGE" and "10 bytes" in said["error"] and said["hint"]


@pytest.mark.parametrize(
    ("wanted", "status", "content", "where"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=5-999", 206, b"56789", "bytes 5-9/10"),
        ("bytes=3-2", 200, b"0123456789", None),
        ("bytes=x", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=" + "9" * 5000 + "-", 200, b"0123456789", None),
    ],
)
def test_ranges(fs: Fs, wanted: str, status: int, content: bytes, where: str | None) -> None:
    fs.write(f"{HOME}/a", b"0123456789")
    answer = fs.read(f"{HOME}/a", headers={"Range": wanted})
    assert (answer.status_code, answer.content, answer.headers.get("content-range")) == (
        status,
        content,
        where,
    )


def test_files_stream_both_ways(fs: Fs, http: httpx.Client) -> None:
    size, piece = 200 << 20, bytes(1 << 20)
    assert fs.write("/tmp/big", (piece for _ in range(size >> 20))).json()["size"] == size
    digest, wanted = hashlib.sha256(), hashlib.sha256()
    with http.stream("GET", "/fs/read", params={"path": "/tmp/big"}) as answer:
        for part in answer.iter_bytes():
            digest.update(part)
    for _ in range(size >> 20):
        wanted.update(piece)
    assert digest.digest() == wanted.digest()
    assert fs.delete("/tmp/big").status_code == 200


def test_a_slow_download_does_not_fill_memory(pilot: Pilot, fs: Fs) -> None:
    fs.write("/tmp/big", (bytes(1 << 20) for _ in range(200)))
    before = pilot.resident()
    try:
        with sockets.socket(sockets.AF_UNIX) as client:
            client.connect(str(pilot.socket))
            client.sendall(b"GET /fs/read?path=/tmp/big HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(1.5)
            assert pilot.resident() - before < 16 << 20
    finally:
        fs.delete("/tmp/big")


# Listing


def test_a_directory_lists_its_children(fs: Fs) -> None:
    fs.write(f"{HOME}/a")
    fs.write(f"{HOME}/d/b")
    listed = fs.list(HOME).json()
    assert listed["path"] == HOME
    assert listed["count"] == len(listed["entries"]) == 2
    kinds = {entry["name"]: (entry["type"], entry["isDir"], entry["path"]) for entry in listed["entries"]}
    assert kinds == {"a": ("file", False, f"{HOME}/a"), "d": ("directory", True, f"{HOME}/d")}
    assert fs.names(HOME, recursive="true") == ["a", "b", "d"]
    assert fs.names(HOME, recursive="true", pattern="b*") == ["b"]
    assert fs.names(HOME, recursive="true", pattern="d/*") == ["b"]
    assert fs.names(HOME, pattern="a") == ["a"]


def test_the_python_client_gets_the_directory_itself_first(fs: Fs) -> None:
    agent = "sprites-py/0.7.2 (python)"
    fs.write(f"{HOME}/a")
    first, *rest = fs.list(HOME, agent).json()["entries"]
    assert (first["name"], first["isDir"], first["path"]) == ("", True, HOME)
    assert [entry["name"] for entry in rest] == ["a"]
    assert [entry["name"] for entry in fs.list(HOME, agent, recursive="true").json()["entries"]] == ["a"]
    assert [entry["name"] for entry in fs.list(HOME, agent, pattern="*").json()["entries"]] == ["a"]
    assert [entry["name"] for entry in fs.list(f"{HOME}/a", agent).json()["entries"]] == ["a"]


# Deleting


def test_delete(fs: Fs, http: httpx.Client) -> None:
    fs.write(f"{HOME}/d/e/a")
    refused(fs.delete(f"{HOME}/d"), 409, "ENOTEMPTY")
    assert fs.delete(f"{HOME}/d", recursive="true").json() == {"deleted": [f"{HOME}/d"], "count": 1}
    refused(fs.delete(f"{HOME}/d"), 404, "ENOENT")
    fs.write(f"{HOME}/a")
    body = {"path": "a", "workingDir": HOME, "recursive": False}
    assert http.request("DELETE", "/fs/delete", json=body).json()["deleted"] == [f"{HOME}/a"]


# Who it is


def test_files_are_the_users_and_its_rights_are_what_it_has(fs: Fs) -> None:
    assert fs.read("/etc/team").text == "for the team", "its groups are those of the sprite's /etc/group"
    refused(fs.read("/etc/secret"), 403, "EACCES")
    refused(fs.write("/etc/new"), 403, "EACCES")
    refused(fs.list("/private"), 403, "EACCES")
    refused(fs.delete("/etc/passwd"), 403, "EACCES")
    assert fs.read("/etc/secret", asRoot="true").text == "root's"
    assert fs.write("/etc/new", asRoot="true").status_code == 200
    assert fs.delete("/etc/new", asRoot="true").status_code == 200


def test_no_path_leads_out_of_the_root(fs: Fs, pilot: Pilot) -> None:
    secret = pilot.directory / "pilot.sock"
    for path in (str(secret), f"/../../..{secret}", "/proc/1/root/etc/passwd"):
        refused(fs.list(path), 404, "ENOENT")
    assert fs.read("/../../../etc/team").text == "for the team"


# What is no regular file


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/", 400, "EISDIR"),
        (HOME, 400, "EISDIR"),
        ("/etc/passwd/x", 400, "ENOTDIR"),
        ("/none", 404, "ENOENT"),
    ],
)
def test_reading_what_is_no_file(fs: Fs, path: str, status: int, code: str) -> None:
    refused(fs.read(path), status, code)


@pytest.mark.parametrize("path", ["/odd/special/fifo", "/odd/special/socket"])
def test_what_could_hang_is_refused_at_once(fs: Fs, path: str) -> None:
    waited = []
    for _ in range(3):
        began = time.monotonic()
        assert fs.read(path).status_code == 400
        assert fs.list(path).json()["count"] == 1
        waited.append(time.monotonic() - began)
    assert min(waited) < 2


def test_links_are_followed_by_readers_and_shown_by_lists(fs: Fs) -> None:
    assert fs.read("/odd/links/to-file").text == "here"
    refused(fs.read("/odd/links/loop"), 400, "ELOOP")
    refused(fs.read("/odd/links/nowhere"), 404, "ENOENT")
    refused(fs.list("/odd/links/nowhere"), 404, "ENOENT")
    kinds = {
        entry["name"]: entry["type"] for entry in fs.list("/odd/links", recursive="true").json()["entries"]
    }
    assert kinds == {"file": "file", **dict.fromkeys(("to-file", "loop", "nowhere", "to-odd"), "symlink")}


def test_deleting_a_link_leaves_what_it_points_to(fs: Fs) -> None:
    fs.write(f"{HOME}/d/file", b"stays")
    assert fs.delete("/odd/links/to-odd", recursive="true", asRoot="true").status_code == 200
    assert "special" in fs.names("/odd")


def test_a_name_that_is_not_utf8_is_listed(fs: Fs) -> None:
    assert len(fs.names("/odd/bytes")) == 1


def test_a_time_far_away_is_listed(fs: Fs) -> None:
    assert fs.names("/odd/time") == ["far"]


def test_many_parents(fs: Fs) -> None:
    assert fs.write(f"{HOME}/" + "d/" * 1800 + "a").status_code == 200


def test_a_deep_tree_is_deleted(fs: Fs) -> None:
    assert fs.delete("/odd/deep", recursive="true", asRoot="true").status_code == 200


def test_a_tree_deeper_than_any_path_is_listed_as_far_as_possible(fs: Fs) -> None:
    assert fs.list("/odd", recursive="true", pattern="special").json()["count"] == 1


@pytest.mark.parametrize("path", [HOME, f"{HOME}/", "/"])
def test_writing_over_a_directory(fs: Fs, path: str) -> None:
    refused(fs.write(path, asRoot="true"), 400, "EISDIR")


# What cannot be right


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"path": ""},
        {"path": "/a\0b"},
        {"path": "x", "workingDir": "relative"},
        {"path": "x", "workingDir": "/\0"},
        {"path": "x" * 5000},
        {"path": "/x", "mode": "rwx"},
        {"path": "/x", "mode": "99999"},
        {"path": "/x", "asRoot": "perhaps"},
    ],
)
def test_bad_parameters_are_refused(http: httpx.Client, query: dict[str, str]) -> None:
    answer = http.put("/fs/write", params=query, content=b"")
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert answer.json()["hint"]


@pytest.mark.parametrize("name", ["workingDir", "pattern"])
def test_parameters_that_are_too_long_are_refused(http: httpx.Client, name: str) -> None:
    answer = http.get("/fs/list", params={"path": "x", name: "/" + "\x01" * 12_000})
    assert 400 <= answer.status_code < 500


def test_a_path_is_as_long_as_its_bytes(http: httpx.Client) -> None:
    long = "/" + "💥" * 4000
    body = json.dumps({"source": long, "dest": long}, ensure_ascii=False)
    assert http.post("/fs/rename", content=body.encode()).status_code == 400


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"path": 1}', b'{"path": "/x", "recursive": []}'])
def test_bad_bodies_are_refused(http: httpx.Client, body: bytes) -> None:
    assert http.request("DELETE", "/fs/delete", content=body).status_code == 400


def test_a_nested_body_is_refused(http: httpx.Client) -> None:
    assert http.request("DELETE", "/fs/delete", content=b"[" * 100_000).status_code == 400
