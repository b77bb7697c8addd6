"""sprite-env's command line."""

from __future__ import annotations

import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.pilot.inside.sprite_env import COMMANDS, Call, Usage, understand

WORDS = sorted({word for command in COMMANDS for word in (*command.words.split(), *command.options)})


@pytest.mark.parametrize(
    ("line", "call"),
    [
        (["info"], Call("GET", "/v1/info")),
        (["services", "list"], Call("GET", "/v1/services")),
        (
            [
                "services",
                "create",
                "web",
                "--cmd",
                "python3",
                "--args",
                "-m,http.server,80",
                "--http-port",
                "80",
            ],
            Call(
                "PUT",
                "/v1/services/web",
                {},
                {"cmd": "python3", "args": ["-m", "http.server", "80"], "http_port": 80},
            ),
        ),
        (
            ["services", "create", "--cmd=a", "--env=A=1,2,B=", "--needs", "x,y", "--no-stream", "web"],
            Call(
                "PUT",
                "/v1/services/web",
                {"duration": "0"},
                {"cmd": "a", "needs": ["x", "y"], "env": {"A": "1,2", "B": ""}},
            ),
        ),
        (
            ["services", "stop", "web", "--timeout", "3s"],
            Call("POST", "/v1/services/web/stop", {"timeout": "3s"}),
        ),
        (
            ["services", "signal", "web", "HUP"],
            Call("POST", "/v1/services/signal", body={"name": "web", "signal": "HUP"}),
        ),
        (["checkpoints", "create", "--comment", ""], Call("POST", "/v1/checkpoint", body={"comment": ""})),
        (["checkpoints", "restore", "v4"], Call("POST", "/v1/checkpoints/v4/restore")),
        (["tasks", "renew", "a", "--expire", "5m"], Call("PUT", "/v1/tasks/a", body={"expire": "5m"})),
    ],
)
def test_what_lines_mean(line: list[str], call: Call) -> None:
    assert understand(line) == call


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["services", "create", "web"], "--cmd is missing"),
        (["services", "create", "web", "--cmd"], "--cmd has no value"),
        (["services", "create", "web", "--cmd", "x", "--no-stream=1"], "takes no value"),
        (["services", "create", "web", "--cmd", "x", "--env", "nothing"], "NAME=VALUE"),
        (["services", "get"], "NAME is missing"),
        (["services", "get", "a", "b"], "does not belong"),
        (["services", "get", "../tasks"], "does not belong"),
        (["info", "-x"], "no option"),
        (["servces"], "no command"),
    ],
)
def test_what_is_wrong_is_said(line: list[str], words: str) -> None:
    with pytest.raises(Usage, match=words):
        understand(line)


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=7))
def test_any_line_is_a_call_or_help_or_wrong(line: list[str]) -> None:
    with contextlib.suppress(Usage):
        found = understand(line)
        assert isinstance(found, str) or found.path.startswith("/v1/")


def test_every_example_is_right() -> None:
    for command in COMMANDS:
        program, *line = shlex.split(command.example)
        assert program == "sprite-env" and isinstance(understand(line), Call)
        assert command.example in str(understand([*command.words.split(), "--help"]))
