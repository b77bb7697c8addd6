"""Tokens, for the command line and for administrators."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from spriggan.server.errors import failures
from spriggan.server.routing import EngineOf
from spriggan.server.routing import router as bounded_router

router = bounded_router(prefix="/v1/tokens", tag="tokens")


class TokenBody(BaseModel):
    model_config = ConfigDict(strict=True)

    label: str = Field(default="", description="Whose or what the token is for.", examples=["laptop"])


class NewToken(BaseModel):
    token: str = Field(description="The token. It is shown this once.")


class Token(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    label: str
    created_at: datetime


class TokensReply(BaseModel):
    tokens: list[Token]


@router.post("", status_code=201, responses=failures(400, 413, 422), summary="Create a token (extension)")
async def create(engine: EngineOf, body: TokenBody | None = None) -> NewToken:
    """Make a token that is good for everything on this server."""
    return NewToken(token=await engine.create_token(body.label if body else ""))


@router.get("", responses=failures(), summary="List tokens (extension)")
async def list_(engine: EngineOf) -> TokensReply:
    """Tokens that are good, without their secrets."""
    return TokensReply(tokens=[Token.model_validate(token) for token in await engine.list_tokens()])


@router.delete("/{id}", status_code=204, responses=failures(404), summary="Revoke a token (extension)")
async def revoke(engine: EngineOf, id: str) -> None:
    """From now on the token is refused."""
    await engine.revoke_token(id)
