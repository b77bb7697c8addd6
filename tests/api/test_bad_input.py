"""Bad input at every entry of the API: the right status, an error with its cause and a hint, and no change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import serving
from spriggan.engine import Engine
from spriggan.server.app import api

NAMES = ["", "a" * 300, "UPPER", "\u00fcnicode", "../x", "a b", "-a", "a-", "a/b", "a\u0000b", "a\nb", "."]
NO_NAMES = [7, None, True, 1.5, ["a"], {"a": 1}]
NO_JSON = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b"7",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"name": "\\ud800"}',
    b"{}x",
]
# What every endpoint that takes JSON is sent, and with what method.
TAKES_JSON = [
    ("POST", "/v1/sprites"),
    ("PUT", "/v1/sprites/NAME"),
    ("POST", "/v1/sprites/NAME/fork"),
    ("POST", "/v1/sprites/NAME/policy/network"),
    ("POST", "/v1/sprites/NAME/services/signal"),
    ("PUT", "/v1/sprites/NAME/services/web"),
    ("POST", "/v1/sprites/NAME/fs/rename"),
    ("POST", "/v1/sprites/NAME/fs/copy"),
    ("POST", "/v1/sprites/NAME/fs/chmod"),
    ("POST", "/v1/sprites/NAME/fs/chown"),
    ("DELETE", "/v1/sprites/NAME/fs/delete"),
]
# The same, but no body at all and an empty object are fine here.
MAY_TAKE_JSON = [
    ("POST", "/v1/sprites/NAME/upgrade"),
    ("POST", "/v1/sprites/NAME/checkpoint"),
    ("POST", "/v1/sprites/NAME/policy/privileges"),
    ("POST", "/v1/sprites/NAME/policy/resources"),
    ("POST", "/v1/sprites/NAME/exec/SESSION/kill"),
    ("POST", "/v1/tokens"),
    ("POST", "/v1/organizations/spriggan/tokens"),
]
FINE_WHERE_NONE_IS_NEEDED = {b"", b"null", b'{"name": "\\ud800"}'}
SOCKETS = ["exec?cmd=true", "exec/1", "control", "proxy", "ports/watch", "fs/watch"]
# Only to know which endpoints there are.
PATHS: dict[str, dict[str, Any]] = api(cast(Engine, None)).openapi()["paths"]
ENDPOINTS = [(method.upper(), path) for path, methods in PATHS.items() for method in methods]


@pytest.fixture(scope="module")
def http(server: serving.Server) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


@pytest.fixture(scope="module")
def kept(server: serving.Server) -> Iterator[Any]:
    """A sprite that all this must leave as it is, with a checkpoint, a service and a file."""
    made = server.client().create_sprite("kept")
    serving.run(made, "echo kept > kept; mkdir full; touch full/file")
    serving.finished(made.create_checkpoint("kept"))
    with server.http() as client:
        service = {"cmd": "sleep", "args": ["1000"]}
        assert client.put("/v1/sprites/kept/services/web?duration=0", json=service).status_code == 200
    yield made
    made.delete()


@pytest.fixture(scope="module")
def session(server: serving.Server, kept: Any) -> Iterator[str]:
    """The id of a command that runs, and has to go on."""
    with opened(server, "exec?cmd=sleep&cmd=1000&max_run_after_disconnect=10ms") as socket:
        id_ = str(json.loads(socket.recv())["session_id"])
        yield id_
        with server.http() as client:
            sessions = client.get("/v1/sprites/kept/exec").json()["sessions"]
        assert id_ in [each["id"] for each in sessions]


def opened(server: serving.Server, rest: str, token: str | None = None, name: str = "kept") -> Any:
    return connect(
        f"{server.url.replace('http', 'ws')}/v1/sprites/{name}/{rest}",
        additional_headers={"Authorization": f"Bearer {token or server.token}"},
    )


def listed(http: httpx.Client) -> Any:
    """Everything that can be listed, without what changes by itself."""
    found: list[Any] = [http.get("/v1/tokens").json(), http.get("/v1/images").json()]
    for sprite in http.get("/v1/sprites").json()["sprites"]:
        path = f"/v1/sprites/{sprite['name']}"
        same = (
            "id",
            "name",
            "config",
            "labels",
            "environment",
            "url_settings",
            "image",
            "current_checkpoint",
        )
        found.append({key: sprite[key] for key in same})
        found.append(http.get(f"{path}/checkpoints?includeAuto=true").json()[1:])
        found += [http.get(f"{path}/policy/{kind}").json() for kind in ("network", "privileges", "resources")]
    services = http.get("/v1/sprites/kept/services").json()
    found.append([(service["cmd"], service["args"], service["state"].get("pid")) for service in services])
    files = http.get("/v1/sprites/kept/fs/list?path=/home/sprite&recursive=true").json()["entries"]
    found.append([entry | {"modTime": None} for entry in files if ".cache" not in entry["path"]])
    return found


@pytest.fixture(scope="module")
def before(http: httpx.Client, kept: Any, session: str) -> Any:
    """What there was before any of these tests."""
    return listed(http)


@pytest.fixture(autouse=True)
def unchanged(http: httpx.Client, before: Any) -> Iterator[None]:
    """Nothing that can be listed is changed by the test."""
    yield
    assert listed(http) == before


def refused(answer: httpx.Response, *statuses: int, words: str = "") -> dict[str, Any]:
    """It is refused with one of these, and says what is wrong and what to do."""
    asked = f"{answer.request.method} {answer.request.url} {answer.request.content[:200]!r}"
    assert answer.status_code in statuses, (asked, answer.status_code, answer.text)
    said: dict[str, Any] = answer.json()
    assert said["error"] and said["code"] and said["hint"], (asked, said)
    assert words in said["error"], (asked, said)
    return said


def not_opened(server: serving.Server, rest: str, status: int, **how: str) -> None:
    with pytest.raises(InvalidStatus) as caught, opened(server, rest, **how):
        pass
    response = caught.value.response
    assert response.status_code == status, (rest, response.status_code, response.body)
    said = json.loads(response.body or b"")
    assert said["error"] and said["code"] and said["hint"], said


# Names


@pytest.mark.parametrize("name", NAMES + NO_NAMES)
def test_names_of_sprites(http: httpx.Client, name: object) -> None:
    status = 422 if isinstance(name, str) else 400
    refused(http.post("/v1/sprites", json={"name": name}), status)
    refused(http.post("/v1/sprites/kept/fork", json={"name": name}), status)


def test_names_that_are_taken(http: httpx.Client) -> None:
    refused(http.post("/v1/sprites", json={"name": "kept"}), 409, words="kept")
    refused(http.post("/v1/sprites/kept/fork", json={"name": "kept"}), 409, words="kept")


@pytest.mark.parametrize("name", ["a" * 300, "\u00fcnicode", "a b", "-a", ".", "..", "a\nb"])
def test_names_of_services(http: httpx.Client, name: str) -> None:
    url = http.base_url.copy_with(raw_path=f"/v1/sprites/kept/services/{_quoted(name)}".encode())
    refused(http.put(url, json={"cmd": "true"}), 400)
    refused(http.get(url), 404)


@pytest.mark.parametrize(("method", "path"), [end for end in ENDPOINTS if "{name}" in end[1]], ids=str)
def test_sprites_that_are_not_there(http: httpx.Client, method: str, path: str) -> None:
    """At every endpoint, whatever else is asked for."""
    body = {
        "name": "new",
        "rules": [],
        "labels": [],
        "cmd": "true",
        "signal": "HUP",
        "path": "/tmp/x",
        "mode": "0644",
    }
    for name in ("nobody", "a" * 300, "UPPER", "\u00fc", ".", "..", "a b", "kept\0"):
        named = path.replace("{name}", _quoted(name)).replace("{id}", "v1").replace("{service}", "web")
        url = http.base_url.copy_with(raw_path=named.encode())
        refused(http.request(method, url, json=None if method == "GET" else body), 404)


def test_sockets_of_sprites_that_are_not_there(server: serving.Server) -> None:
    for rest in SOCKETS:
        for name in ("nobody", "%2e%2e", "a%2fb", "%ff"):
            not_opened(server, rest, 404, name=name)


# Bodies


@pytest.mark.parametrize(("method", "path"), TAKES_JSON + MAY_TAKE_JSON, ids=str)
def test_bodies_that_are_no_object(http: httpx.Client, session: str, method: str, path: str) -> None:
    fine = FINE_WHERE_NONE_IS_NEEDED if (method, path) in MAY_TAKE_JSON else set()
    path = path.replace("NAME", "kept").replace("SESSION", session)
    for body in NO_JSON:
        if body not in fine:
            refused(
                http.request(method, path, content=body, headers={"Content-Type": "application/json"}), 400
            )


def test_bodies_that_are_too_long(http: httpx.Client, session: str) -> None:
    body = json.dumps({"name": "x" * (2 << 20)}).encode()
    for method, path in TAKES_JSON + MAY_TAKE_JSON:
        path = path.replace("NAME", "kept").replace("SESSION", session)
        answer = http.request(method, path, content=body, headers={"Content-Type": "application/json"})
        refused(answer, 400, 413)


# At what, what, which statuses, and what the error names.
SPRITE = "/v1/sprites/kept"
WRONG: list[tuple[str, str, Any, set[int], str]] = [
    # Creating: wrong types
    *[
        ("POST", "/v1/sprites", {"name": "new", key: value}, {400}, key)
        for key, value in [
            ("image", 5),
            ("box", ["container"]),
            ("config", "small"),
            ("config", []),
            ("labels", "ci"),
            ("labels", [1]),
            ("labels", {"a": "b"}),
            ("environment", ["A=1"]),
            ("environment", {"A": 1}),
            ("url_settings", "public"),
            ("url_settings", {"auth": 5}),
            ("wait_for_capacity", "yes"),
            ("runtime", 1),
        ]
    ],
    *[
        ("POST", "/v1/sprites", {"name": "new", "config": {key: value}}, {400}, key)
        for key in ("ram_mb", "cpus", "storage_gb", "pids")
        for value in ("1", True, [1], {})
    ],
    ("POST", "/v1/sprites", {"name": "new", "config": {"ram_mb": 1.5}}, {400}, "ram_mb"),
    # Creating: out of range
    *[
        ("POST", "/v1/sprites", {"name": "new", "config": {key: value}}, {422}, key)
        for key in ("ram_mb", "storage_gb", "pids")
        for value in (-1, 0, 10**9, 10**15)
    ],
    *[
        ("POST", "/v1/sprites", {"name": "new", "config": {"cpus": value}}, {422}, "cpus")
        for value in (-0.5, 10_000, 1e300)
    ],
    ("POST", "/v1/sprites", {"name": "new", "image": "no-such-image"}, {404}, "no-such-image"),
    ("POST", "/v1/sprites", {"name": "new", "image": "../../etc/passwd"}, {400}, "image"),
    ("POST", "/v1/sprites", {"name": "new", "image": "i" * 300}, {400}, "image"),
    ("POST", "/v1/sprites", {"name": "new", "box": "spaceship"}, {422}, "spaceship"),
    ("POST", "/v1/sprites", {"name": "new", "labels": [""]}, {422}, "label"),
    ("POST", "/v1/sprites", {"name": "new", "labels": ["l" * 200]}, {422}, "label"),
    ("POST", "/v1/sprites", {"name": "new", "labels": ["a\nb"]}, {422}, "label"),
    ("POST", "/v1/sprites", {"name": "new", "labels": [str(n) for n in range(100)]}, {422}, "labels"),
    ("POST", "/v1/sprites", {"name": "new", "environment": {"": "x"}}, {422}, "environment"),
    ("POST", "/v1/sprites", {"name": "new", "environment": {"A=B": "x"}}, {422}, "environment"),
    ("POST", "/v1/sprites", {"name": "new", "environment": {"A": "x\0y"}}, {422}, "environment"),
    ("POST", "/v1/sprites", {"name": "new", "environment": {"A": "x" * 70_000}}, {422}, "environment"),
    ("POST", "/v1/sprites", {"name": "new", "url_settings": {"auth": "everybody"}}, {422}, "auth"),
    (
        "POST",
        "/v1/sprites",
        {"name": "new", "url_settings": {"private_access": "x"}},
        {422},
        "private_access",
    ),
    # Changing
    ("PUT", SPRITE, {}, {400}, "labels"),
    ("PUT", SPRITE, {"labels": ["a"], "clear_labels": True}, {400}, "labels"),
    ("PUT", SPRITE, {"labels": [""]}, {422}, "label"),
    ("PUT", SPRITE, {"labels": 1}, {400}, "labels"),
    ("PUT", SPRITE, {"clear_labels": "yes"}, {400}, "clear_labels"),
    ("PUT", SPRITE, {"url_settings": {"auth": "x"}}, {422}, "auth"),
    ("PUT", SPRITE, {"url_settings": []}, {400}, "url_settings"),
    ("POST", f"{SPRITE}/upgrade", {"version": "99.0.0"}, {422}, "version"),
    ("POST", f"{SPRITE}/upgrade", {"version": 1}, {400}, "version"),
    # Checkpoints
    ("POST", f"{SPRITE}/checkpoint", {"comment": 5}, {400}, "comment"),
    ("POST", f"{SPRITE}/checkpoint", {"comment": "c" * 2000}, {422}, "comment"),
    ("POST", f"{SPRITE}/checkpoint", {"comment": "a\0b"}, {422}, "comment"),
    ("GET", f"{SPRITE}/checkpoints?includeAuto=maybe", None, {400}, "includeAuto"),
    *[
        (method, f"{SPRITE}/checkpoints/{id_}", None, {404}, "")
        for method in ("GET", "DELETE")
        for id_ in ("v99", "99", "v01", "V1", "%2e%2e", "a" * 300, "%00", "auto-1")
    ],
    ("DELETE", f"{SPRITE}/checkpoints/v1", None, {409}, "v1"),  # the current one
    ("DELETE", f"{SPRITE}/checkpoints/Current", None, {409}, "Current"),
    ("POST", f"{SPRITE}/fork", {"name": "new", "checkpoint": "v99"}, {404}, "v99"),
    ("POST", f"{SPRITE}/fork", {"name": "new", "checkpoint": "../v1"}, {404}, "v1"),
    ("POST", f"{SPRITE}/fork", {"name": "new", "checkpoint": 1}, {400}, "checkpoint"),
    # Policies
    *[
        ("POST", f"{SPRITE}/policy/network", body, {400}, words)
        for body, words in [
            ({}, "rules"),
            ({"rules": None}, "rules"),
            ({"rules": "x"}, "rules"),
            ({"rules": [1]}, "rules"),
            ({"rules": [{}]}, "rules[0]"),
            ({"rules": [{"domain": "x"}]}, "rules[0]"),
            ({"rules": [{"domain": "x", "action": "maybe"}]}, "action"),
            ({"rules": [{"domain": 1, "action": "allow"}]}, "domain"),
            ({"rules": [{"domain": "a b", "action": "allow"}]}, "a b"),
            ({"rules": [{"domain": "x" * 300, "action": "allow"}]}, "xxx"),
            ({"rules": [{"include": "everything"}]}, "defaults"),
            ({"rules": [{"domain": "x", "action": a} for a in ("allow", "deny")]}, "both"),
            ({"rules": [{"domain": f"x{n}", "action": "allow"} for n in range(1001)]}, "1001"),
        ]
    ],
    *[
        ("POST", f"{SPRITE}/policy/privileges", body, {400}, words)
        for body, words in [
            ({"profile": "x"}, "profile"),
            ({"profile": 1}, "profile"),
            ({"devices": ["/dev/sda"]}, "devices"),
            ({"devices": "/dev/fuse"}, "devices"),
            ({"noNewPrivileges": "yes"}, "noNewPrivileges"),
        ]
    ],
    *[
        ("POST", f"{SPRITE}/policy/resources", {"memory": memory}, {400, 422}, words)
        for memory, words in [
            (1, "memory"),
            ({"limit_mb": "x"}, "limit_mb"),
            ({"limit_mb": 1}, "limit_mb"),
            ({"limit_mb": -1}, "limit_mb"),
            ({"limit_mb": 10**9}, "limit_mb"),
            ({"limit_mb": 1.5}, "limit_mb"),
            ({"limit_mb": 4096, "autoscale": 1}, "autoscale"),
        ]
    ],
    # Services
    *[
        ("PUT", f"{SPRITE}/services/new", {"cmd": "true"} | body, {400}, words)
        for body, words in [
            ({"cmd": ""}, "cmd"),
            ({"cmd": 5}, "cmd"),
            ({"cmd": "a\0b"}, "cmd"),
            ({"args": "x"}, "args"),
            ({"args": [1]}, "args"),
            ({"args": ["x" * 200_000]}, "too long"),
            ({"env": ["A=1"]}, "env"),
            ({"env": {"A": 1}}, "env"),
            ({"env": {"": "x"}}, "env"),
            ({"dir": "relative"}, "dir"),
            ({"dir": 5}, "dir"),
            ({"needs": "web"}, "needs"),
            ({"needs": ["nothing"]}, "nothing"),
            ({"needs": ["new"]}, "itself"),
            ({"http_port": 0}, "http_port"),
            ({"http_port": 70_000}, "http_port"),
            ({"http_port": "80"}, "http_port"),
            ({"http_port": True}, "http_port"),
        ]
    ],
    ("PUT", f"{SPRITE}/services/web?duration=soon", {"cmd": "true"}, {400}, "duration"),
    ("PUT", f"{SPRITE}/services/web?duration=-1s", {"cmd": "true"}, {400}, "duration"),
    ("PUT", f"{SPRITE}/services/web?duration=99h", {"cmd": "true"}, {400}, "duration"),
    *[
        (method, f"{SPRITE}/services/nothing{rest}", None, {404}, "nothing")
        for method, rest in [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/start"),
            ("POST", "/stop"),
            ("POST", "/restart"),
            ("GET", "/logs"),
        ]
    ],
    ("DELETE", f"{SPRITE}/services/web?timeout=x", None, {400}, "timeout"),
    ("POST", f"{SPRITE}/services/web/start?duration=x", None, {400}, "duration"),
    ("POST", f"{SPRITE}/services/web/stop?timeout=99h", None, {400}, "timeout"),
    ("POST", f"{SPRITE}/services/web/restart?timeout=-1s", None, {400}, "timeout"),
    ("GET", f"{SPRITE}/services/web/logs?lines=all", None, {400}, "lines"),
    ("GET", f"{SPRITE}/services/web/logs?lines=-1", None, {400}, "lines"),
    ("GET", f"{SPRITE}/services/web/logs?duration=99h", None, {400}, "duration"),
    ("POST", f"{SPRITE}/services/signal", {"name": "nothing", "signal": "HUP"}, {404}, "nothing"),
    ("POST", f"{SPRITE}/services/signal", {"name": "web", "signal": "FROWN"}, {400}, "FROWN"),
    ("POST", f"{SPRITE}/services/signal", {"name": "web", "signal": 99}, {400}, "99"),
    ("POST", f"{SPRITE}/services/signal", {"name": "web"}, {400}, "signal"),
    ("POST", f"{SPRITE}/services/signal", {"name": 1, "signal": "HUP"}, {400}, "name"),
    # Commands
    *[
        ("POST", f"{SPRITE}/exec?cmd=true&{query}", None, {400}, words)
        for query, words in [
            ("tty=true", "terminal"),
            ("tty=maybe", "tty"),
            ("stdin=maybe", "stdin"),
            ("rows=0", "rows"),
            ("rows=x", "rows"),
            ("cols=99999999", "cols"),
            ("env=NOEQUALS", "NOEQUALS"),
            ("env==x", "env"),
            ("env=A=%00", "env"),
            ("dir=relative", "dir"),
            ("dir=/" + "d" * 5000, "dir"),
            ("max_run_after_disconnect=soon", "max_run_after_disconnect"),
            ("max_run_after_disconnect=-1s", "max_run_after_disconnect"),
            ("cmd=%00", "NUL"),
            ("&".join(["cmd=x"] * 5000), "command line"),
        ]
    ],
    ("POST", f"{SPRITE}/exec?cmd=", None, {400}, "empty"),
    *[
        ("POST", f"{SPRITE}/exec/{id_}/kill", None, {404}, "no session")
        for id_ in ("99999", "0", "-1", "%2e%2e", "x" * 300, "%00")
    ],
    *[
        ("POST", f"{SPRITE}/exec/SESSION/kill{query}", body, {400}, words)
        for query, body, words in [
            ("?signal=FROWN", None, "FROWN"),
            ("?signal=0", None, "signal"),
            ("?timeout=soon", None, "timeout"),
            ("?timeout=-1s", None, "timeout"),
            ("?timeout=99h", None, "timeout"),
            ("", {"signal": 99}, "99"),
            ("", {"signal": ["TERM"]}, "signal"),
            ("", {"timeout": -1}, "timeout"),
            ("", {"timeout": "soon"}, "timeout"),
            ("", {"timeout": True}, "timeout"),
        ]
    ],
    # Files
    *[
        (method, f"{SPRITE}/fs/{op}{query}", None, statuses, words)
        for method, op in [("GET", "read"), ("PUT", "write"), ("GET", "list"), ("DELETE", "delete")]
        for query, statuses, words in [
            ("", {400}, "path"),
            ("?path=", {400}, "path"),
            ("?path=%00", {400}, "NUL"),
            ("?path=/" + "p" * 5000, {400}, "long"),
            ("?path=x&workingDir=relative", {400}, "workingDir"),
            ("?path=/home/sprite/full&asRoot=maybe", {400}, "asRoot"),
            ("?path=/home/sprite/kept/below", {400}, "not a directory"),
            ("?path=/home/sprite/" + "n" * 300, {400}, "name too long"),
        ]
    ],
    ("GET", f"{SPRITE}/fs/read?path=/no/such", None, {404}, "no such file"),
    ("GET", f"{SPRITE}/fs/read?path=/home/sprite/full", None, {400}, "is a directory"),
    ("GET", f"{SPRITE}/fs/read?path=/etc/shadow", None, {403}, "permission denied"),
    ("GET", f"{SPRITE}/fs/list?path=/no/such", None, {404}, "no such file"),
    ("GET", f"{SPRITE}/fs/list?path=/root", None, {403}, "permission denied"),
    ("GET", f"{SPRITE}/fs/list?path=/&recursive=maybe", None, {400}, "recursive"),
    ("GET", f"{SPRITE}/fs/list?path=/&pattern=" + "p" * 2000, None, {400}, "pattern"),
    ("PUT", f"{SPRITE}/fs/write?path=/home/sprite/full", None, {400}, "is a directory"),
    ("PUT", f"{SPRITE}/fs/write?path=/etc/passwd", None, {403}, "permission denied"),
    ("PUT", f"{SPRITE}/fs/write?path=/home/sprite/new&mode=rw", None, {400}, "mode"),
    ("PUT", f"{SPRITE}/fs/write?path=/home/sprite/new&mode=99", None, {400}, "mode"),
    ("PUT", f"{SPRITE}/fs/write?path=/home/sprite/a/b/new&mkdir=maybe", None, {400}, "mkdir"),
    ("PUT", f"{SPRITE}/fs/write?path=/home/sprite/a/b/new&mkdirParents=false", None, {404}, "no such file"),
    ("DELETE", f"{SPRITE}/fs/delete?path=/no/such", None, {404}, "no such file"),
    ("DELETE", f"{SPRITE}/fs/delete?path=/home/sprite/full", None, {409}, "not empty"),
    ("DELETE", f"{SPRITE}/fs/delete?path=/etc/passwd", None, {403}, "permission denied"),
    ("DELETE", f"{SPRITE}/fs/delete?path=/&recursive=true&asRoot=true", None, {403}, "not permitted"),
    ("DELETE", f"{SPRITE}/fs/delete", {"path": 5}, {400}, "path"),
    *[
        ("POST", f"{SPRITE}/fs/{op}", body, statuses, words)
        for op in ("rename", "copy")
        for body, statuses, words in [
            ({}, {400}, "missing"),
            ({"source": "/home/sprite/kept"}, {400}, "dest"),
            ({"source": 1, "dest": "/tmp/x"}, {400}, "source"),
            ({"source": "/home/sprite/kept", "dest": ["x"]}, {400}, "dest"),
            ({"source": "/no/such", "dest": "/tmp/x"}, {404}, "no such file"),
            ({"source": "/home/sprite/kept", "dest": "/no/such/dir"}, {404}, "no such file"),
            ({"source": "/home/sprite/kept", "dest": "/usr/x"}, {403}, "permission denied"),
            ({"source": "kept", "dest": "x", "workingDir": "relative"}, {400}, "workingDir"),
            ({"source": "/home/sprite/kept", "dest": "/tmp/x", "asRoot": "maybe"}, {400}, "asRoot"),
        ]
    ],
    (
        "POST",
        f"{SPRITE}/fs/rename",
        {"source": "/home/sprite/kept", "dest": "/home/sprite/full"},
        {400, 409},
        "",
    ),
    (
        "POST",
        f"{SPRITE}/fs/rename",
        {"source": "/home/sprite/full", "dest": "/home/sprite/full/in"},
        {400},
        "",
    ),
    ("POST", f"{SPRITE}/fs/copy", {"source": "/home/sprite/full", "dest": "/tmp/x"}, {400}, "is a directory"),
    *[
        ("POST", f"{SPRITE}/fs/{op}", body, statuses, words)
        for op, value in [("chmod", {"mode": "0600"}), ("chown", {"uid": "sprite"})]
        for body, statuses, words in [
            ({}, {400}, "missing"),
            ({"path": "/home/sprite/kept"}, {400}, "missing"),
            (value, {400}, "path"),
            (value | {"path": 1}, {400}, "path"),
            (value | {"path": "/no/such"}, {404}, "no such file"),
            (value | {"path": "/etc/passwd"}, {403}, "not permitted"),
            (value | {"path": "/home/sprite/kept", "recursive": "maybe"}, {400}, "recursive"),
        ]
    ],
    *[
        ("POST", f"{SPRITE}/fs/chmod", {"path": "/home/sprite/kept", "mode": mode}, {400}, "mode")
        for mode in ("rwx", "0999", 600, "", "000000")
    ],
    *[
        ("POST", f"{SPRITE}/fs/chown", {"path": "/home/sprite/kept", "asRoot": True} | ids, {400, 404}, "")
        for ids in (
            {"uid": "nobody-there"},
            {"uid": -1},
            {"uid": 1 << 40},
            {"gid": ""},
            {"gid": [1]},
            {"uid": True},
        )
    ],
    # The host
    ("GET", "/v1/sprites?max_results=many", None, {400}, "max_results"),
    ("GET", "/v1/sprites?continuation_token=%ff!", None, {400}, "continuation_token"),
    ("GET", "/v1/sprites?bulk_load=maybe", None, {400}, "bulk_load"),
    ("POST", "/v1/tokens", {"label": 5}, {400}, "label"),
    ("POST", "/v1/tokens", {"label": "l" * 10_000}, {422}, "label"),
    ("POST", "/v1/organizations/other/tokens", {}, {404}, "organization"),
    ("POST", "/v1/organizations/spriggan/tokens", {"description": 5}, {400}, "description"),
    *[("DELETE", f"/v1/tokens/{id_}", None, {404}, "") for id_ in ("none", "%2e%2e", "a" * 300, "%00")],
    # No endpoints
    *[
        (method, path, None, statuses, "")
        for method, path, statuses in [
            ("GET", "/", {404}),
            ("GET", "/v1/nonsense", {404}),
            ("GET", "/v2/sprites", {404}),
            ("GET", f"{SPRITE}/nonsense", {404}),
            ("GET", f"{SPRITE}/fs/nonsense", {404}),
            ("GET", f"{SPRITE}/policy/weather", {404}),
            ("PATCH", SPRITE, {405}),
            ("DELETE", "/v1/sprites", {405}),
            ("GET", f"{SPRITE}/checkpoint", {405}),
            ("POST", f"{SPRITE}/fs/read", {405}),
            ("GET", f"{SPRITE}/control", {404}),
        ]
    ],
]


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses", "words"), WRONG, ids=lambda value: str(value)[:50] if value else ""
)
def test_every_entry(
    http: httpx.Client,
    session: str,
    method: str,
    path: str,
    body: Any,
    statuses: set[int],
    words: str,
) -> None:
    url = http.base_url.copy_with(raw_path=path.replace("SESSION", session).encode())
    refused(http.request(method, url, json=body), *statuses, words=words)


def test_restores_that_cannot_be(http: httpx.Client) -> None:
    """Clients expect these as a stream."""
    for id_ in ("v99", "Current", "%2e%2e", "auto-1", "a" * 300):
        answer = http.post(f"/v1/sprites/kept/checkpoints/{id_}/restore")
        (line,) = answer.text.splitlines()
        said = json.loads(line)
        assert (answer.status_code, said["type"]) == (200, "error")
        assert said["error"].startswith("Failed to restore checkpoint: ") and said["hint"]


# WebSockets


@pytest.mark.parametrize(
    "query",
    ["tty=maybe", "rows=0", "cols=x", "env=NOEQUALS", "dir=relative", "max_run_after_disconnect=soon"],
)
def test_parameters_of_a_socket(server: serving.Server, query: str) -> None:
    not_opened(server, f"exec?cmd=true&{query}", 400)


def test_sockets_to_nothing(server: serving.Server) -> None:
    for rest in (
        "exec/99999",
        "exec?id=99999",
        "exec/%2e%2e",
        "exec/" + "9" * 300,
        "nonsense",
        "fs/read?path=/",
    ):
        not_opened(server, rest, 404)


def test_first_messages_of_the_proxy(server: serving.Server) -> None:
    for message in ("", "{", "[]", "{}", '{"port": 0}', '{"port": "x"}', '{"host": 1, "port": 1}', b"\0"):
        with opened(server, "proxy") as socket:
            socket.send(message)
            said = json.loads(socket.recv())
            assert said["status"] != "connected" and said["error"] and said["hint"], (message, said)


def test_subscriptions(server: serving.Server) -> None:
    with opened(server, "fs/watch") as socket:
        for message in (
            "{",
            '{"type": "subscribe"}',
            '{"type": "subscribe", "paths": "x"}',
            '{"type": "subscribe", "paths": [1]}',
            '{"type": "subscribe", "paths": ["/no/such"]}',
            '{"type": "subscribe", "paths": ["x"], "workingDir": "relative"}',
        ):
            socket.send(message)
            said = {"type": "subscribed"}
            while said["type"] == "subscribed":  # what can be watched of a list is
                said = json.loads(socket.recv(10))
            assert said["type"] == "error" and said["message"], (message, said)


# Tokens


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer spriggan/x/y/z",
        "Basic eDp5",
        "Bearer a b",
        "bearerwrong",
        "Bearer \u00e9",
        "Bearer " + "x" * 5000,
    ],
    ids=lambda header: repr(header)[:20],
)
def test_tokens_that_are_none(server: serving.Server, http: httpx.Client, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with httpx.Client(base_url=server.url, headers=headers) as stranger:
        for method, path in ENDPOINTS:
            named = path.replace("{name}", "kept").replace("{id}", "v1").replace("{service}", "web")
            refused(
                stranger.request(method, named.replace("{slug}", "spriggan")),
                401,
                words="token" if headers else "",
            )


def test_a_token_that_is_revoked(server: serving.Server, http: httpx.Client) -> None:
    token = http.post("/v1/tokens", json={"label": "temporary"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{server.url}/v1/sprites", headers=headers).status_code == 200
    with opened(server, "exec?cmd=true", token=token):
        pass
    assert http.delete(f"/v1/tokens/{token.split('/')[2]}").status_code == 204
    refused(httpx.get(f"{server.url}/v1/sprites", headers=headers), 401)
    refused(httpx.delete(f"{server.url}/v1/sprites/kept", headers=headers), 401)
    for rest in SOCKETS:
        not_opened(server, rest, 401, token=token)
        not_opened(server, rest, 401, token="wrong")


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())
