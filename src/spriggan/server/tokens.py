"""Tokens, for the command line and for administrators."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from spriggan.errors import NotFound
from spriggan.server.errors import failures
from spriggan.server.routing import EngineOf
from spriggan.server.routing import router as bounded_router

router = bounded_router(prefix="/v1", tag="tokens")


class TokenBody(BaseModel):
    model_config = ConfigDict(strict=True)

    label: str = Field(default="", description="Whose or what the token is for.", examples=["laptop"])


class MintBody(BaseModel):
    """What official clients send."""

    description: str = Field(default="", description="Becomes the token's label.")
    invite_code: str | None = Field(default=None, description="Accepted and without effect.")


class NewToken(BaseModel):
    token: str = Field(description="The token. It is shown this once.")


class Token(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    label: str
    created_at: datetime


class TokensReply(BaseModel):
    tokens: list[Token]


@router.post(
    "/tokens", status_code=201, responses=failures(400, 413, 422), summary="Create a token (extension)"
)
async def create(engine: EngineOf, body: TokenBody | None = None) -> NewToken:
    """Make a token that is good for everything on this server."""
    return NewToken(token=await engine.create_token(body.label if body else ""))


@router.post(
    "/organizations/{slug}/tokens",
    status_code=201,
    responses=failures(400, 404, 413, 422),
    summary="Create a token, as official clients do",
)
async def mint(engine: EngineOf, slug: str, body: MintBody | None = None) -> NewToken:
    """Who asks shows a token of this server, as `Bearer` or `FlyV1`, and gets another one."""
    if slug != engine.options.organization:
        raise NotFound(
            "there is no such organization", hint=f"this server's is {engine.options.organization}"
        )
    return NewToken(token=await engine.create_token(body.description if body else ""))


@router.get("/tokens", responses=failures(), summary="List tokens (extension)")
async def list_(engine: EngineOf) -> TokensReply:
    """Tokens that are good, without their secrets."""
    return TokensReply(tokens=[Token.model_validate(token) for token in await engine.list_tokens()])


@router.delete("/tokens/{id}", status_code=204, responses=failures(404), summary="Revoke a token (extension)")
async def revoke(engine: EngineOf, id: str) -> None:
    """From now on the token is refused."""
    await engine.revoke_token(id)
