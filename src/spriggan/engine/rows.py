"""Reading and writing records; each function works inside the caller's transaction."""

from __future__ import annotations

from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from spriggan.engine import schema
from spriggan.engine.records import Checkpoint, Intent, SpriteConfig, SpriteRow, TokenInfo
from spriggan.errors import AlreadyExists

# Asked with every request, so made once: to put a statement together takes longer than to run it.
_SPRITE_BY_ID = sa.select(schema.sprites).where(schema.sprites.c.id == sa.bindparam("wanted"))
_SPRITE_BY_NAME = sa.select(schema.sprites).where(schema.sprites.c.name == sa.bindparam("wanted"))
_TOKEN = sa.select(schema.tokens).where(schema.tokens.c.id == sa.bindparam("wanted"))

_CHECKPOINT_COLUMNS = [column.name for column in schema.checkpoints.columns]


def now() -> datetime:
    return datetime.now(UTC)


# Sprites


def insert_sprite(tx: Connection, row: SpriteRow) -> None:
    """Raises ``AlreadyExists`` if the name is taken."""
    if sprite_by_name(tx, row.name):
        raise AlreadyExists(
            f"a sprite named {row.name} exists already",
            hint=f"choose another name, or destroy it first: spriggan destroy {row.name}",
        )
    tx.execute(schema.sprites.insert().values(**asdict(row)))


def sprite(tx: Connection, sprite_id: str) -> SpriteRow | None:
    return _sprite(tx.execute(_SPRITE_BY_ID, {"wanted": sprite_id}).first())


def sprite_by_name(tx: Connection, name: str) -> SpriteRow | None:
    return _sprite(tx.execute(_SPRITE_BY_NAME, {"wanted": name}).first())


def sprites(tx: Connection, prefix: str = "", limit: int | None = None, after: str = "") -> list[SpriteRow]:
    """Sprites in the order of their names, from the one that follows ``after``."""
    name = schema.sprites.c.name
    query = sa.select(schema.sprites).where(name > after).order_by(name).limit(limit)
    if prefix:  # not LIKE: SQLite's ignores case
        query = query.where(sa.func.substr(name, 1, len(prefix)) == prefix)
    return [row for row in map(_sprite, tx.execute(query)) if row]


def update_sprite(tx: Connection, sprite_id: str, **values: Any) -> None:
    tx.execute(schema.sprites.update().where(schema.sprites.c.id == sprite_id).values(**values))


def all_cold(tx: Connection) -> None:
    """Every sprite was stopped."""
    tx.execute(schema.sprites.update().where(schema.sprites.c.status != "cold").values(status="cold"))


def delete_sprite(tx: Connection, sprite_id: str) -> None:
    """Its checkpoints' rows go with it."""
    tx.execute(schema.sprites.delete().where(schema.sprites.c.id == sprite_id))


def _sprite(row: Row[Any] | None) -> SpriteRow | None:
    if row is None:
        return None
    values = dict(row._mapping)
    values["config"] = SpriteConfig(**values["config"])
    return SpriteRow(**values)


# Checkpoints


def insert_checkpoint(tx: Connection, checkpoint: Checkpoint) -> None:
    values = {name: getattr(checkpoint, name) for name in _CHECKPOINT_COLUMNS}
    tx.execute(schema.checkpoints.insert().values(**values))


def checkpoints(tx: Connection, sprite_id: str) -> list[Checkpoint]:
    """A sprite's checkpoints, oldest first."""
    table, current = schema.checkpoints, _current(tx, sprite_id)
    query = sa.select(table).where(table.c.sprite_id == sprite_id).order_by(table.c.create_time, table.c.id)
    return [Checkpoint(**row._mapping, is_current=row.id == current) for row in tx.execute(query)]


def checkpoint(tx: Connection, sprite_id: str, checkpoint_id: str) -> Checkpoint | None:
    return next((found for found in checkpoints(tx, sprite_id) if found.id == checkpoint_id), None)


def delete_checkpoint(tx: Connection, sprite_id: str, checkpoint_id: str) -> None:
    table = schema.checkpoints
    tx.execute(table.delete().where(table.c.sprite_id == sprite_id, table.c.id == checkpoint_id))


def all_checkpoints(tx: Connection) -> set[tuple[str, str]]:
    """(sprite id, checkpoint id) of every checkpoint."""
    query = sa.select(schema.checkpoints.c.sprite_id, schema.checkpoints.c.id)
    return {(row.sprite_id, row.id) for row in tx.execute(query)}


def _current(tx: Connection, sprite_id: str) -> str | None:
    column = schema.sprites.c.current_checkpoint
    return tx.execute(sa.select(column).where(schema.sprites.c.id == sprite_id)).scalar()


# Intents


def open_intent(
    tx: Connection, kind: str, sprite_id: str, sprite_name: str, details: dict[str, Any]
) -> Intent:
    created_at = now()
    insert = schema.intents.insert().values(
        kind=kind, sprite_id=sprite_id, sprite_name=sprite_name, details=details, created_at=created_at
    )
    key = tx.execute(insert).inserted_primary_key
    if key is None:
        raise RuntimeError("the database gave no key for an intent")
    return Intent(
        id=key[0],
        kind=kind,
        sprite_id=sprite_id,
        sprite_name=sprite_name,
        details=details,
        created_at=created_at,
    )


def update_intent(tx: Connection, intent: Intent) -> None:
    tx.execute(schema.intents.update().where(schema.intents.c.id == intent.id).values(details=intent.details))


def close_intent(tx: Connection, intent: Intent) -> None:
    tx.execute(schema.intents.delete().where(schema.intents.c.id == intent.id))


def intents(tx: Connection, sprite_id: str | None = None) -> list[Intent]:
    """Changes under way, in the order they began."""
    query = sa.select(schema.intents).order_by(schema.intents.c.id)
    if sprite_id is not None:
        query = query.where(schema.intents.c.sprite_id == sprite_id)
    return [Intent(**row._mapping) for row in tx.execute(query)]


# Tokens


def insert_token(tx: Connection, token: TokenInfo, hashed: str) -> None:
    tx.execute(schema.tokens.insert().values(**asdict(token), hash=hashed))


def tokens(tx: Connection) -> list[TokenInfo]:
    """All tokens ever made, the revoked ones too, oldest first."""
    columns = [schema.tokens.c[known.name] for known in fields(TokenInfo)]
    return [
        TokenInfo(**row._mapping) for row in tx.execute(sa.select(*columns).order_by(columns[2], columns[0]))
    ]


def token_and_hash(tx: Connection, token_id: str) -> tuple[TokenInfo, str] | None:
    row = tx.execute(_TOKEN, {"wanted": token_id}).first()
    if row is None:
        return None
    values = dict(row._mapping)
    hashed: str = values.pop("hash")
    return TokenInfo(**values), hashed


def revoke_token(tx: Connection, token_id: str) -> bool:
    """False if there is no such token, or it is revoked already."""
    table = schema.tokens
    unrevoked = table.update().where(table.c.id == token_id, table.c.revoked_at.is_(None))
    return tx.execute(unrevoked.values(revoked_at=now())).rowcount > 0
