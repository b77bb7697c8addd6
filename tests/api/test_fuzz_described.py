"""Every endpoint of ``/openapi.json`` is asked for what its description allows and for what it does not:
no 500, no hang, no leak, and no answer that the description does not know.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

import fuzzing
import httpx
import pytest
import schemathesis
from fuzzing import HOME, PATHS, PATIENCE_S
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.parameters import ParameterLocation

import serving
from spriggan.engine import Engine
from spriggan.server.app import api
from spriggan.wire.durations import parse_duration

load_all_checks()
ALWAYS = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
    ]
)
REJECTING = CHECKS.get_by_names(["negative_data_rejection"])

# Only to know the endpoints before a server runs; ``test_the_server_says_the_same`` holds it to this.
DESCRIPTION = api(cast(Engine, None)).openapi()
OPERATIONS: list[APIOperation] = [
    found.ok() for found in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()
]
# What is there to be named in a path, beside the sprite.
THINGS = {
    "id": ["v1", "Current", "1", "9" * 30, "..", "\u00fc"],
    "service": ["web", "signal", "..", "a" * 64, "\u00fc"],
    "slug": ["spriggan", "other"],
}
# Each of these takes a good part of a second.
SLOW = ("/restart", "/stop", "/upgrade", "/fork", "/checkpoint", "/trim")
SERVICE = {"cmd": "sleep", "args": ["1000"]}


@pytest.fixture(scope="module")
def fuzzed(server: serving.Server) -> Iterator[Any]:
    """A sprite that has something of everything."""
    made = server.client().create_sprite("fuzzed")
    serving.finished(made.create_checkpoint("to be named"))
    yield made
    made.delete()


def test_the_server_says_the_same(server: serving.Server) -> None:
    assert httpx.get(f"{server.url}/openapi.json").json() == DESCRIPTION


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_every_endpoint(server: serving.Server, fuzzed: Any, operation: APIOperation) -> None:
    name = fuzzed.name
    headers = {"Authorization": f"Bearer {server.token}"}

    @fuzzing.examples(8 if operation.path.endswith(SLOW) else 30)
    @given(cases(operation, name))
    def ask(case: Case) -> None:
        if case.method == "DELETE" and case.formatted_path == f"/v1/sprites/{name}":
            case.path_parameters["name"] = "nobody"
        begun = time.monotonic()
        response = case.call(base_url=server.url, headers=headers, timeout=PATIENCE_S)
        assert time.monotonic() - begun < PATIENCE_S, "it hangs"
        case.validate_response(response, checks=ALWAYS + REJECTING if _body_is_wrong(case) else ALWAYS)

    with server.http() as http:
        fuzzing.furnish(server, fuzzed)
        with fuzzing.nothing_is_left(server, fuzzed):
            web = http.put(f"/v1/sprites/{name}/services/web?duration=0", json=SERVICE)
            assert web.status_code == 200, web.text
            ask()


@st.composite
def cases(draw: st.DrawFn, operation: APIOperation, sprite: str) -> Case:
    """Requests to one endpoint: right ones and wrong ones, mostly for what there is."""
    named = {"name": sprite}
    named |= {thing: draw(st.sampled_from(values)) for thing, values in THINGS.items()}
    wanted = {parameter.name for parameter in operation.path_parameters}
    given_path = {key: value for key, value in named.items() if key in wanted}
    ways = [operation.as_strategy(), operation.as_strategy(path_parameters=given_path)]
    if operation.body or operation.query:
        ways.append(operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=given_path))
    case = draw(st.one_of(ways))
    if any(parameter.name == "duration" for parameter in operation.query):
        case.query.setdefault("duration", "0")  # not given, it is seconds
    for place in (case.query, case.body):
        if isinstance(place, dict):
            _aim(draw, place)
            _tame(place)
    return case


def _body_is_wrong(case: Case) -> bool:
    """Whether the body was made not to fit its description. (In a query much fits that is not described.)"""
    body = case.meta.components.get(ParameterLocation.BODY) if case.meta else None
    return body is not None and body.mode.is_negative


def _aim(draw: st.DrawFn, place: dict[str, Any]) -> None:
    """Name files that are there, or are hard to take."""
    for key in ("path", "source", "dest", "workingDir"):
        if key in place and draw(st.booleans()):
            place[key] = draw(st.sampled_from(PATHS))


def _tame(place: dict[str, Any]) -> None:
    """Ask for nothing that takes long because it was asked for, nor for the end of the sprite's own world."""
    for key in ("duration", "timeout", "max_run_after_disconnect"):
        if key in place and _seconds(place[key]) > 0.2:
            place[key] = "0.1s"
    for key in ("asRoot", "recursive"):
        # As root and everywhere, there is soon nothing left to ask for.
        if key in place and str(place[key]).lower() in ("true", "1", "") and not _at_home(place):
            place[key] = "false"


def _seconds(value: object) -> float:
    try:
        return float(value) if not isinstance(value, str) else parse_duration(value)
    except (TypeError, ValueError):
        try:
            return float(str(value))
        except ValueError:
            return 0


def _at_home(place: dict[str, Any]) -> bool:
    paths = [place[key] for key in ("path", "source", "dest") if key in place]
    return all(isinstance(path, str) and path.startswith(f"{HOME}/f") and ".." not in path for path in paths)
