"""Whatever is sent to the inner socket gets an answer, soon, and never an internal error."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pilot_client import Pilot

LENIENT = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FINE = (*range(200, 500), 503, 507)  # 503: this pilot has no server to ask

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(["web", "db", "signal", "..", "a" * 64, "é", "\x00", "x/y", ""]) | st.text(
    max_size=12
)
sometimes_right = {
    "cmd": st.sampled_from(["true", "false", "/no/such/program"]) | json_values,
    "args": st.lists(st.text(max_size=5), max_size=3) | json_values,
    "env": st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2) | json_values,
    "dir": st.sampled_from(["/", "/tmp"]) | json_values,
    "needs": st.lists(names, max_size=3) | json_values,
    "http_port": st.integers(0, 70000) | json_values,
    "name": names | json_values,
    "expire": st.sampled_from(["1h", "5m", 60, "1ns", "-1s", 1e300, "9" * 400]) | json_values,
    "signal": st.sampled_from(["HUP", 9, "SIGKILL"]) | json_values,
    "comment": json_values,
}
bodies = st.fixed_dictionaries({}, optional=sometimes_right) | json_values
paths = st.one_of(
    st.just("/v1/services"),
    names.map(lambda name: f"/v1/services/{quote(name, safe='')}"),
    st.tuples(names, st.sampled_from(["start", "stop", "restart", "logs", "x"])).map(
        lambda pair: f"/v1/services/{quote(pair[0], safe='')}/{pair[1]}"
    ),
    st.sampled_from(
        ["/v1/services/signal", "/v1/tasks", "/v1/info", "/v1/checkpoint", "/v1/checkpoints", "/"]
    ),
    names.map(lambda name: f"/v1/tasks/{quote(name, safe='')}"),
    names.map(lambda name: f"/v1/checkpoints/{quote(name, safe='')}/mount"),
    st.text(max_size=20).map(lambda text: f"/{quote(text)}"),
)
values = st.sampled_from(["0", "0s", "0.1s", "1ms", "-1s", "", "1e9", "9" * 30]) | st.text(max_size=10)
queries = st.dictionaries(st.sampled_from(["lines", "timeout", "x"]), values, max_size=2)


@pytest.fixture(scope="module")
def inner(pilot: Pilot) -> Any:
    transport = httpx.HTTPTransport(uds=str(pilot.directory / "inner.sock"))
    with httpx.Client(transport=transport, base_url="http://sprite", timeout=20) as client:
        yield client


@LENIENT
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=paths,
    query=queries,
    body=bodies,
)
def test_requests(inner: httpx.Client, method: str, path: str, query: dict[str, str], body: Any) -> None:
    content = json.dumps(body).encode()
    answer = inner.request(method, path, params={**query, "duration": "0"}, content=content)
    assert answer.status_code in FINE, (answer.status_code, answer.text)
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.json()["error"]


@LENIENT
@given(
    argv=st.lists(
        st.sampled_from(["services", "create", "--cmd", "tasks", "web", "-h", "=", "--env"]) | st.text(),
        max_size=6,
    )
)
def test_command_lines(inner: httpx.Client, argv: list[str]) -> None:
    argv = [word for word in argv if word not in ("--duration",)]
    body = b"".join(word.replace("\0", "").encode(errors="replace") + b"\0" for word in argv)
    answer = inner.post("/v1/sprite-env", content=body)
    assert answer.status_code == 200
    lines = answer.text.splitlines()
    assert lines[-1] in ("=0", "=1", "=2")
    assert all(line[:1] in ("1", "2") for line in lines[:-1])


@LENIENT
@given(
    data=st.binary(max_size=400)
    | st.text(max_size=100).map(lambda text: f"POST /v1/{text} HTTP/1.1\r\n\r\n".encode())
)
def test_bytes(pilot: Pilot, inner: httpx.Client, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(20)
        raw.connect(str(pilot.directory / "inner.sock"))
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := raw.recv(65536):
            answer += piece
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert inner.get("/v1/info").status_code == 200


def test_the_pilot_has_written_down_no_error(pilot: Pilot) -> None:
    """Last in this file: what went wrong inside without reaching a client."""
    assert "Traceback" not in (pilot.directory / "log").read_text()
