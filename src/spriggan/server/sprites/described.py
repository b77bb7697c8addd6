"""How an endpoint of a sprite's pilot is described in ``/openapi.json``.

The pilot is who reads and checks what clients send; what is said here is what it takes and answers.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from spriggan.server.errors import failures

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WORDS: Schema = {"type": "array", "items": TEXT}
FLAG: Schema = {"type": "boolean"}
PATH: Schema = {"type": "string", "minLength": 1, "maxLength": 4096}
MODE: Schema = {"type": "string", "pattern": "^0?[0-7]{3,4}$", "examples": ["0644"]}
SIZE: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
# Go's durations; other numbers of seconds are taken, too.
DURATION: Schema = {
    "type": "string",
    "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?(h|ms|m|s|us|ns))+$|^0$",
    "examples": ["5s"],
}

BYTES: Schema = {"type": "string", "format": "binary"}
OCTETS = "application/octet-stream"
NDJSON = "application/x-ndjson"


# How a request that needs the sprite awake may be refused, whatever it asks for: there may be too many
# that run, it may not start or not answer, and it may wait for space.
WAKING = (429, 500, 503, 507)


def parameter(name: str, text: str, schema: Schema = TEXT, *, required: bool = False) -> Schema:
    """A parameter of the query."""
    return {"name": name, "in": "query", "required": required, "description": text, "schema": schema}


def query(*parameters: Schema) -> Schema:
    """All parameters of the query, for ``openapi_extra``."""
    return {"parameters": list(parameters)}


def body(model: type[BaseModel], *, required: bool = True) -> Schema:
    """A body in JSON, for ``openapi_extra``."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": of(model)}}}}


def raw_body() -> Schema:
    """A body of bytes, for ``openapi_extra``."""
    return {"requestBody": {"content": {OCTETS: {"schema": BYTES}}}}


def answers(
    description: str, content: type[BaseModel] | Schema, *errors: int, media_type: str = "application/json"
) -> dict[int | str, Any]:
    """The responses of an endpoint that needs the sprite awake: what it answers, and how it refuses."""
    schema = content if isinstance(content, dict) else of(content)
    return {
        200: {"description": description, "content": {media_type: {"schema": schema}}},
        **failures(404, *WAKING, *errors),
    }


def of(model: type[BaseModel]) -> Schema:
    """A model among the description's schemas."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}
