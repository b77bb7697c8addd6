"""What people mistype on a command line: an exit code, a sentence and a hint, and nothing has changed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import serving

LONG = "a" * 300
Words = list[str | bytes]


def listed(server: serving.Server) -> Any:
    """Sprites, their checkpoints, services and policies, tokens and images."""
    with server.http() as http:
        sprites = http.get("/v1/sprites").json()["sprites"]
        found: list[Any] = [http.get("/v1/tokens").json(), http.get("/v1/images").json()]
        for sprite in sprites:
            path = f"/v1/sprites/{sprite['name']}"
            found.append(
                {key: sprite[key] for key in ("id", "name", "config", "labels", "url_settings", "image")}
            )
            found.append(http.get(f"{path}/checkpoints?includeAuto=true").json()[1:])
            found += [
                http.get(f"{path}/policy/{kind}").json() for kind in ("network", "privileges", "resources")
            ]
    return found


@pytest.fixture(scope="module")
def before(server: serving.Server, kept: Any) -> Any:
    """What there was before any of these tests."""
    return listed(server)


@pytest.fixture
def unchanged(server: serving.Server, before: Any) -> Iterator[None]:
    """Nothing that can be listed is changed by the test."""
    yield
    assert listed(server) == before


def refused(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> None:
    """It ended with ``code`` and said why, with a way out, in a sentence."""
    said = done.stderr.decode()
    assert done.returncode == code, (done.args, said)
    assert re.search(r"(?m)^spriggan: .+\n(.+\n)*  hint: .", said), (done.args, said)
    assert "Traceback" not in said and "defect" not in said, said
    for word in words:
        assert word in said, (done.args, word, said)
    assert done.stdout == b""


@pytest.fixture(scope="module")
def kept(server: serving.Server) -> Iterator[Any]:
    """A sprite that all this must leave as it is."""
    made = server.client().create_sprite("kept")
    serving.finished(made.create_checkpoint("kept"))
    yield made
    made.delete()


@pytest.mark.parametrize("name", ["", LONG, "\u00fcnicode", "../x", "UPPER", b"\xff"])
def test_names(server: serving.Server, unchanged: None, name: str | bytes) -> None:
    for words in (["create"], ["fork", "kept"]):
        refused(server.cli(*words, "--", name), 1)
    for words in (
        ["info"],
        ["destroy", "--force"],
        ["stop"],
        ["restart"],
        ["check"],
        ["upgrade"],
        ["use"],
    ):
        refused(server.cli(*words, "--", name), 1)
    for words in (["exec", "-s", name, "--", "true"], ["checkpoint", "create", "-s", name]):
        refused(server.cli(*words), 1)


def test_a_name_that_is_empty_does_not_mean_the_remembered_sprite(
    server: serving.Server, unchanged: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert server.cli("use", "kept").returncode == 0
    empty: list[Words] = [
        ["destroy", "--force", ""],
        ["destroy", "--force", "-s", ""],
        ["stop", ""],
        ["restart", ""],
        ["fork", "", "new"],
        ["console", ""],
        ["exec", "-s", "", "--", "true"],
        ["checkpoint", "restore", "-s", "", "v1"],
        ["policy", "clear", "-s", "", "network"],
        ["api", "-s", "", "checkpoints"],
    ]
    for words in empty:
        refused(server.cli(*words), 1)


def test_names_that_are_taken(server: serving.Server, unchanged: None) -> None:
    refused(server.cli("create", "kept"), 1, "kept")
    refused(server.cli("fork", "kept", "kept"), 1, "kept")


UNKNOWN: list[tuple[Words, str]] = [
    (["checkpoint", "restore", "-s", "kept", "v99"], "v99"),
    (["checkpoint", "info", "-s", "kept", "v99"], "v99"),
    (["checkpoint", "delete", "-s", "kept", "v99"], "v99"),
    (["restore", "-s", "kept", "v99"], "v99"),
    (["fork", "kept", "new", "--checkpoint", "v99"], "v99"),
    (["checkpoint", "restore", "-s", "kept", "Current"], "Current"),
    (["checkpoint", "delete", "-s", "kept", "v1"], "v1"),  # the current one
    (["create", "new", "--image", "no-such-image"], "no-such-image"),
    (["create", "new", "--image", "../../etc"], "etc"),
    (["create", "new", "--box", "spaceship"], "spaceship"),
    (["sessions", "attach", "-s", "kept", "99999"], "99999"),
    (["attach", "-s", "kept", "99999"], "99999"),
    (["sessions", "kill", "-s", "kept", "99999"], "99999"),
    (["token", "revoke", "no-such-token"], "no token"),
    (["upgrade", "kept", "--version", "99.0.0"], "version"),
    (["file", "pull", "-s", "kept", "/no/such/file", "here"], "no such file"),
    (["file", "push", "-s", "kept", "/no/such/file", "there"], "/no/such/file"),
    (["exec", "-s", "kept", "--file", "/no/such/file:/tmp/x", "--", "true"], "/no/such/file"),
]


@pytest.mark.parametrize(("words", "said"), UNKNOWN, ids=lambda value: str(value[:2]) if value else "")
def test_what_does_not_exist(
    server: serving.Server,
    unchanged: None,
    words: Words,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(server.cli(*words), 1, said)
    assert not list(tmp_path.iterdir())


USAGE: list[tuple[Words, int]] = [
    (["frobnicate"], 2),
    (["list", "--bogus"], 2),
    (["fork"], 2),
    (["create", "a", "b"], 2),
    (["create", "new", "--ram", "much"], 2),
    (["create", "new", "--ram", "0"], 2),
    (["create", "new", "--ram", "999999999"], 1),
    (["create", "new", "--cpus", "0"], 2),
    (["create", "new", "--cpus", "nan"], 2),
    (["create", "new", "--cpus", "inf"], 2),
    (["create", "new", "--cpus", "99999"], 1),
    (["create", "new", "--storage", "-1"], 2),
    (["create", "new", "--storage", "999999999"], 1),
    (["create", "new", "--env", "NOEQUALS"], 1),
    (["create", "new", "--env", "1A=b"], 1),
    (["create", "new", "--label", ""], 1),
    (["create", "new", "--label", "l" * 200], 1),
    (["create", "new", "--label", b"\xff"], 1),
    (["fork"], 2),
    (["fork", "a", "b", "c"], 2),
    (["stop", "--all", "kept"], 2),
    (["use", "kept", "--unset"], 2),
    (["exec", "-s", "kept"], 2),
    (["exec", "-s", "kept", "--tty", "--http-post", "--", "true"], 2),
    (["exec", "-s", "kept", "--env", "A", "--", "true"], 1),
    (["exec", "-s", "kept", "--dir", "relative", "--", "true"], 1),
    (["exec", "-s", "kept", "--", ""], 1),
    (["exec", "-s", "kept", "--http-post", "--", ""], 1),
    (["exec", "-s", "kept", "--", b"\xff"], 1),
    (["exec", "-s", "kept", "--http-post", "--env", b"A=\xff", "--", "true"], 1),
    (["exec", "-s", "kept", "--", "x" * 130_000], 1),
    (["exec", "-s", "kept", "--file", "nothing", "--", "true"], 1),
    (["checkpoint", "create", "-s", "kept", "--comment", "c" * 2000], 1),
    (["checkpoint", "frobnicate"], 2),
    (["checkpoint", "restore", "-s", "kept"], 2),
    (["sessions", "kill", "-s", "kept", "1", "--timeout", "-1"], 2),
    (["sessions", "kill", "-s", "kept", "1", "--timeout", "soon"], 2),
    (["sessions", "kill", "-s", "kept", "1", "--timeout", "nan"], 2),
    (["proxy", "-s", "kept"], 2),
    (["proxy", "-s", "kept", "0"], 1),
    (["proxy", "-s", "kept", "70000"], 1),
    (["proxy", "-s", "kept", "http"], 1),
    (["proxy", "-s", "kept", "1:2:3"], 1),
    (["proxy", "-s", "kept", "-W", "localhost:0"], 1),
    (["proxy", "-s", "kept", "-W", "localhost"], 1),
    (["policy", "get", "-s", "kept", "weather"], 2),
    (["policy", "set", "-s", "kept", "network", "{"], 1),
    (["policy", "set", "-s", "kept", "network", "[" * 100_000], 1),
    (["policy", "set", "-s", "kept", "network", "[]"], 1),
    (["policy", "set", "-s", "kept", "network", "{}"], 1),
    (["policy", "set", "-s", "kept", "network", '{"rules": [{"domain": "x"}]}'], 1),
    (["policy", "set", "-s", "kept", "privileges", '{"profile": "x"}'], 1),
    (["policy", "set", "-s", "kept", "privileges", '{"devices": ["/dev/sda"]}'], 1),
    (["policy", "set", "-s", "kept", "resources", '{"memory": {"limit_mb": 1}}'], 1),
    (["policy", "set", "-s", "kept", "resources", '{"memory": {"limit_mb": "x"}}'], 1),
    (["url", "update", "-s", "kept"], 2),
    (["url", "update", "-s", "kept", "--auth", "everybody"], 2),
    (["config", "update", "-s", "kept"], 1),
    (["config", "update", "-s", "kept", "--label", "a", "--clear-labels"], 1),
    (["file", "push", "-s", "kept", "/etc", "there"], 1),
    (["file", "push", "-s", "kept", "/etc/hostname", "/etc/passwd"], 1),
    (["file", "pull", "-s", "kept", "/etc", "here"], 1),
    (["file", "pull", "-s", "kept", "/etc/shadow", "here"], 1),
    (["token", "create", "l" * 100_000], 1),
    (["api", "/v1/a b"], 1),
]


@pytest.mark.parametrize(("words", "code"), USAGE, ids=lambda value: str(value)[:60])
def test_command_lines(
    server: serving.Server,
    unchanged: None,
    words: Words,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(server.cli(*words), code)
    assert not list(tmp_path.iterdir())


def test_policies_on_standard_input(server: serving.Server, unchanged: None) -> None:
    for text in (b"", b"{", b"\xff\xfe", b"nul", b"["):
        refused(server.cli("policy", "set", "-s", "kept", "network", "-", input=text), 1, "not JSON")


def test_a_port_that_is_taken(server: serving.Server, unchanged: None) -> None:
    refused(server.cli("proxy", "-s", "kept", f"{server.port}:80"), 1, str(server.port))


@pytest.mark.parametrize(
    "token",
    ["wrong", "", "a b", "a\tb", "\u00fc", "spriggan/x/y/z", "x" * 10_000],
    ids=lambda token: token[:20],
)
def test_tokens(server: serving.Server, token: str) -> None:
    for words in (
        ["list"],
        ["exec", "-s", "kept", "--", "true"],
        ["exec", "-s", "kept", "--http-post", "--", "true"],
    ):
        refused(server.cli(*words, SPRITE_TOKEN=token), 1, "oken" if len(token) < 1000 else "")


def test_a_token_that_is_revoked(server: serving.Server, unchanged: None) -> None:
    token = server.cli("token", "create", "temporary").stdout.decode().strip()
    assert server.cli("list", SPRITE_TOKEN=token).returncode == 0
    assert server.cli("token", "revoke", token.split("/")[2]).returncode == 0
    for words in (["list"], ["create", "new"], ["exec", "-s", "kept", "--", "true"], ["token", "list"]):
        refused(server.cli(*words, SPRITE_TOKEN=token), 1, "token is not valid")


@pytest.mark.parametrize(
    "url",
    ["nonsense", "ftp://127.0.0.1", "http://", "http://[", "http://127.0.0.1:99999", "http://127.0.0.1:x"],
)
def test_addresses_that_are_none(server: serving.Server, url: str) -> None:
    for words in (
        ["list"],
        ["exec", "-s", "x", "--", "true"],
        ["exec", "-s", "x", "--http-post", "--", "true"],
    ):
        refused(server.cli(*words, SPRITES_API_URL=url), 1, "SPRITES_API_URL")


def test_nobody_listens_there(server: serving.Server, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        for words in (
            ["list"],
            ["exec", "-s", "x", "--", "true"],
            ["exec", "-s", "x", "--http-post", "--", "true"],
        ):
            refused(server.cli(*words, SPRITES_API_URL=url), 1, "no server answers", url)
            refused(server.cli("--data", str(tmp_path), *words, SPRITES_API_URL=""), 1, "no server answers")


# The data directory


def own(data: Path, *words: str, wrapped: tuple[str, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """A command on a data directory, without a word of where a server is."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SPRITE")}
    command = [*wrapped, serving.SPRIGGAN, *words, "--data", str(data)]
    return subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)


ON_DATA = (["serve", "--listen", "127.0.0.1:0"], ["image", "list"], ["image", "show"], ["down"])


def contents(data: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_a_data_directory_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for words in (*ON_DATA, ["list"]):
        refused(own(file, *words), 2, str(file))
    for words in (["serve", "--listen", "127.0.0.1:0"], ["list"]):
        refused(own(file / "below", *words), 1, str(file / "below"))
    assert contents(tmp_path) == {str(file): b"mine"}


@pytest.mark.parametrize("name", ["instance.json", "state.db"])
def test_a_data_directory_that_is_damaged(name: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / name).write_text("garbage" * 1000)
    refused(own(tmp_path, "serve", "--listen", "127.0.0.1:0"), 1, name)
    assert (tmp_path / name).read_text() == "garbage" * 1000


def test_a_data_directory_that_cannot_be_read(tmp_path: Path) -> None:
    """For root without its right to read all the same, as in many containers."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    data = tmp_path / "data"
    (data / "images" / "refs").mkdir(parents=True)
    data.chmod(0)
    weak = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    try:
        serve, *others = ON_DATA
        refused(own(data, *serve, wrapped=weak), 1, "root lacks the capabilities DAC_OVERRIDE")
        for words in others:
            refused(own(data, *words, wrapped=weak), 1, str(data), "Permission denied")
        refused(own(data, "list", wrapped=weak), 1, str(data), "for the user who runs the server")
    finally:
        data.chmod(0o700)


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    script = 'mount -t tmpfs -o ro none "$0" && exec "$@"'
    alone = ("unshare", "--mount", "sh", "-c", script, str(tmp_path))
    for words in (["serve", "--listen", "127.0.0.1:0"], ["image", "import", "x", "/dev/null"]):
        refused(own(tmp_path / "data", *words, wrapped=alone), 1, str(tmp_path))


SERVE: list[tuple[list[str], int]] = [
    (["--listen", "nonsense"], 1),
    (["--listen", "127.0.0.1:"], 1),
    (["--listen", "127.0.0.1:99999"], 1),
    (["--listen", "127.0.0.1:-1"], 1),
    (["--listen", "no.such.host.invalid:0"], 1),
    (["--listen", "192.0.2.1:0"], 1),
    (["--max-ram", "0"], 2),
    (["--max-ram", "x"], 2),
    (["--max-cpus", "0"], 2),
    (["--max-storage", "-1"], 2),
    (["--reserve", "-1"], 2),
    (["--idle", "-1"], 2),
    (["--idle", "nan"], 2),
    (["--max-running", "-1"], 2),
    (["--create-rate", "many"], 2),
    (["--bogus"], 2),
    (["extra"], 2),
]


@pytest.mark.parametrize(
    ("words", "code"), SERVE, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_flags_of_serve(words: list[str], code: int, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    refused(own(tmp_path / "data", "serve", *words), code)
    assert not (tmp_path / "data" / "state.db").exists()


def test_serving_twice(server: serving.Server, unchanged: None, tmp_path: Path) -> None:
    refused(own(tmp_path / "data", "serve", "--listen", f"127.0.0.1:{server.port}"), 1, str(server.port))
    assert not (tmp_path / "data" / "state.db").exists()
    refused(own(server.data, "serve", "--listen", "127.0.0.1:0"), 1, str(server.data))


def test_images(server: serving.Server, unchanged: None, tmp_path: Path) -> None:
    nothing, text = tmp_path / "nothing", tmp_path / "text"
    text.write_text(json.dumps({"no": "image"}))
    bad = [
        ["image", "import", "x", str(nothing)],
        ["image", "import", "x", str(text)],
        ["image", "import", "../x", str(text)],
        ["image", "import", LONG, str(text)],
        ["image", "show", "nothing"],
        ["image", "rm", "nothing"],
        ["image", "rm", "../../etc"],
    ]
    for words in bad:
        refused(own(server.data, *words), 1)
    refused(own(server.data, "image", "import", "x", str(text), "--max-size", "0"), 2)
    refused(own(server.data, "image", "import", "x"), 2)
