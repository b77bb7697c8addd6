"""Policies of a sprite: network, privileges, resources."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from spriggan.server.errors import failures
from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.routing import router as bounded_router
from spriggan.wire.policy import ACTIONS, DEVICES, MAX_RULES, PROFILES

router = bounded_router(prefix="/v1/sprites/{name}/policy", tag="policies")

# The engine checks policies; this describes them.
_RULE: dict[str, Any] = {
    "type": "object",
    "required": ["domain", "action"],
    "properties": {"domain": {"type": "string"}, "action": {"enum": list(ACTIONS)}},
    "additionalProperties": False,
}
_INCLUDE: dict[str, Any] = {
    "type": "object",
    "required": ["include"],
    "properties": {"include": {"const": "defaults"}},
    "additionalProperties": False,
}


class NetworkBody(BaseModel):
    model_config = ConfigDict(strict=True)

    rules: list[dict[str, Any]] = Field(
        description="Each `{domain, action}` or `{include: defaults}`; none: everything is allowed.",
        examples=[[{"domain": "*.example.org", "action": "allow"}]],
        json_schema_extra={"items": {"anyOf": [_RULE, _INCLUDE]}, "maxItems": MAX_RULES},
    )


class PrivilegesBody(BaseModel):
    """Counts for commands started afterwards; devices from the sprite's next start on."""

    model_config = ConfigDict(strict=True)

    profile: str = Field(
        default="",
        description="`minimal`, `standard`, `privileged`, or empty: all.",
        json_schema_extra={"enum": list(PROFILES)},
    )
    devices: list[str] = Field(
        default=[],
        description="Let in although the profile has none.",
        json_schema_extra={"items": {"enum": list(DEVICES)}},
    )
    noNewPrivileges: bool = Field(default=False, description="Commands cannot gain any, as by sudo.")


class MemoryBody(BaseModel):
    model_config = ConfigDict(strict=True)

    limit_mb: int | None = Field(default=None, description="MiB; counts at once.", examples=[4096])
    autoscale: bool | None = Field(default=None, description="Accepted and without effect.")


class ResourcesBody(BaseModel):
    model_config = ConfigDict(strict=True)

    memory: MemoryBody | None = None


_SET = failures(400, 404, 409, 413, 422, 503)


@router.get("/network", responses=failures(404), summary="Get the network policy")
async def network(engine: EngineOf, name: SpriteName) -> NetworkBody:
    """The rules as they were set; none: the sprite reaches every public address."""
    return NetworkBody(**await engine.policies.get(name, "network"))


@router.post("/network", status_code=204, responses=_SET, summary="Set the network policy")
async def set_network(engine: EngineOf, name: SpriteName, body: NetworkBody) -> None:
    """In force at once, for connections that exist, too."""
    await engine.policies.set(name, "network", body.model_dump())


@router.get("/privileges", responses=failures(404), summary="Get the privileges policy")
async def privileges(engine: EngineOf, name: SpriteName) -> PrivilegesBody:
    """What commands of the sprite may do."""
    return PrivilegesBody(**await engine.policies.get(name, "privileges"))


@router.post("/privileges", status_code=204, responses=_SET, summary="Set the privileges policy")
async def set_privileges(engine: EngineOf, name: SpriteName, body: PrivilegesBody) -> None:
    """For commands started from now on; what runs keeps what it has."""
    await engine.policies.set(name, "privileges", body.model_dump())


@router.delete("/privileges", status_code=204, responses=failures(404, 503), summary="Lift privileges policy")
async def clear_privileges(engine: EngineOf, name: SpriteName) -> None:
    """Commands may do all that a sprite may do."""
    await engine.policies.clear(name, "privileges")


@router.get("/resources", responses=failures(404), summary="Get the resources policy")
async def resources(engine: EngineOf, name: SpriteName) -> ResourcesBody:
    """What the sprite may use."""
    return ResourcesBody(**await engine.policies.get(name, "resources"))


@router.post("/resources", status_code=204, responses=_SET, summary="Set the resources policy")
async def set_resources(engine: EngineOf, name: SpriteName, body: ResourcesBody) -> None:
    """A memory limit counts at once; one below what programs use now is refused."""
    await engine.policies.set(name, "resources", body.model_dump(exclude_none=True))


@router.delete(
    "/resources", status_code=204, responses=failures(404, 409, 503), summary="Lift the resources policy"
)
async def clear_resources(engine: EngineOf, name: SpriteName) -> None:
    """Back to the limits that the sprite was created with."""
    await engine.policies.clear(name, "resources")
