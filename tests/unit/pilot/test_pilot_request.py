"""Parameters of exec requests."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from spriggan.pilot.request import PATH, BadRequest, ExecRequest, from_json, parse
from spriggan.wire.spec import SpriteSpec, Uplink, User

SPEC = SpriteSpec(
    sprite_id="sprite-1",
    name="one",
    hostname="one",
    run_dir="/run/one",
    containers_dir="/run/containers",
    spool_dir="/spool/one",
    disk="/disk.img",
    layers=[],
    first_id=0x10000000,
    cgroup="/one",
    uplink=Uplink("uplink0", "169.254.1.3/31", "169.254.1.2", "fd00::3/127", "fd00::2", 1500),
    user=User("sprite", "/bin/zsh"),
    environment={"FROM_SPRITE": "1", "LANG": "de_DE.UTF-8"},
)


def parsed(*pairs: tuple[str, str]) -> ExecRequest:
    return parse(QueryParams(urlencode(pairs)), SPEC)


def test_the_defaults_without_a_terminal() -> None:
    request = parsed(("cmd", "ls"), ("cmd", "-l"))
    assert request.process.argv == ["ls", "-l"]
    assert request.process.cwd == "", "the container knows where the user is at home"
    assert not request.process.any_shell
    assert request.process.user is None
    assert (request.tty, request.linger) == (False, 10.0)
    assert request.process.env == {
        "PATH": PATH,
        "LANG": "de_DE.UTF-8",
        "FROM_SPRITE": "1",
    }


def test_the_defaults_with_a_terminal() -> None:
    request = parsed(("tty", "true"))
    assert request.process.argv[0] == "bash"
    assert request.process.any_shell
    assert request.process.env["TERM"] == "xterm-256color"
    assert (request.rows, request.cols, request.linger) == (24, 80, None)


def test_given_variables_lie_over_the_defaults() -> None:
    environment = parsed(("cmd", "x"), ("env", "A=1=2"), ("env", "LANG="), ("env", "A=3")).process.env
    assert environment["A"] == "3"
    assert environment["LANG"] == ""
    assert environment["PATH"] == PATH


def test_path_names_the_program() -> None:
    process = parsed(("cmd", "sh"), ("cmd", "-c"), ("path", "/bin/dash")).process
    assert (process.program, process.argv) == ("/bin/dash", ["sh", "-c"])


@pytest.mark.parametrize(("text", "linger"), [("0", None), ("0s", None), ("1m30s", 90.0), ("250ms", 0.25)])
def test_how_long_it_runs_without_a_client(text: str, linger: float | None) -> None:
    assert parsed(("cmd", "x"), ("max_run_after_disconnect", text)).linger == linger


def test_a_detachable_command_has_no_limit() -> None:
    assert parsed(("cmd", "x"), ("detachable", "true")).linger is None


BAD = [
    ("rows", "0"),
    ("rows", "-1"),
    ("rows", "65536"),
    ("rows", "9" * 5000),
    ("rows", "1.5"),
    ("rows", "\u0665"),
    ("cols", "wide"),
    ("cols", ""),
    ("tty", "maybe"),
    ("stdin", "2"),
    ("detachable", "\0"),
    ("max_run_after_disconnect", "10"),
    ("max_run_after_disconnect", "-1s"),
    ("max_run_after_disconnect", "9" * 17 + "h"),
    ("env", "NAME"),
    ("env", "=value"),
    ("env", "A=\0"),
    ("env", "A=" + "x" * 200_000),
    ("dir", "relative"),
    ("dir", "/a\0b"),
    ("dir", "/" + "x" * 5000),
    ("cmd", "a\0b"),
    ("cmd", "x" * 200_000),
    ("path", "a\0b"),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_cannot_be_right_is_refused_with_a_hint(name: str, value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed(("cmd", "true"), (name, value))
    assert caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 300, "what was given is not thrown back whole"


def test_too_many_arguments_are_refused() -> None:
    with pytest.raises(BadRequest):
        parsed(*[("cmd", "")] * 5000)


NAMES = [
    "cmd",
    "path",
    "env",
    "dir",
    "tty",
    "rows",
    "cols",
    "stdin",
    "detachable",
    "max_run_after_disconnect",
]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=20)), max_size=8))
def test_any_parameters_are_a_command_or_a_bad_request(pairs: list[tuple[str, str]]) -> None:
    try:
        request = parsed(*pairs)
    except BadRequest:
        return
    assert request.process.argv
    assert request.process.program, "its name may be empty, it itself not"
    assert request.process.cwd == "" or request.process.cwd.startswith("/")
    for text in (*request.process.argv, *request.process.env.values(), request.process.cwd):
        assert "\0" not in text


@pytest.mark.parametrize(
    "arguments", [None, [], "x", {"cmd": {}}, {"cmd": [[]]}, {"env": ["\ud800"]}, {"dir": None}]
)
def test_json_that_no_url_could_say_is_refused(arguments: object) -> None:
    with pytest.raises(BadRequest):
        from_json(arguments)


def test_json_says_the_same_as_a_url() -> None:
    arguments = {"cmd": ["sh", "-c"], "env": ["A=1", "B=2"], "tty": True, "rows": 30, "stdin": "false"}
    request = parse(from_json(arguments), SPEC)
    assert (request.process.argv, request.tty, request.rows, request.stdin) == (["sh", "-c"], True, 30, False)
    assert request.process.env["B"] == "2"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON | st.dictionaries(st.sampled_from(NAMES), JSON))
def test_any_json_is_a_command_or_a_bad_request(arguments: object) -> None:
    try:
        assert parse(from_json(arguments), SPEC).process.argv
    except BadRequest as error:
        assert error.hint
