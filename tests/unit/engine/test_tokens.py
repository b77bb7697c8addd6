"""Tokens and capabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.engine.store import Store, sqlite_url
from spriggan.engine.tokens import Capabilities, Tokens
from spriggan.errors import InvalidValue, NotFound


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[Tokens]:
    store = Store(sqlite_url(tmp_path / "state.db"))
    await store.open()
    yield Tokens(store, "acme", "abcd1234")
    await store.close()


async def test_a_token_is_good_until_revoked(tokens: Tokens) -> None:
    text = await tokens.create("laptop")
    organization, organization_id, token_id, secret = text.split("/")
    assert (organization, organization_id) == ("acme", "abcd1234") and len(secret) >= 40
    for _ in range(2):  # the second time it is remembered
        found = await tokens.check(text)
        assert found is not None and (found.id, found.label) == (token_id, "laptop")
        assert await tokens.check(text[:-1] + "!") is None
        assert await tokens.is_good(token_id)
    assert [known.id for known in await tokens.list()] == [token_id]
    await tokens.revoke(token_id)
    assert await tokens.check(text) is None
    assert not await tokens.is_good(token_id)
    assert await tokens.list() == []
    for again in (token_id, "nobody"):
        with pytest.raises(NotFound):
            await tokens.revoke(again)


async def test_every_part_counts(tokens: Tokens) -> None:
    text = await tokens.create("")
    parts = text.split("/")
    for number in range(4):
        changed = [*parts]
        changed[number] += "x"
        assert await tokens.check("/".join(changed)) is None
    for wrong in ("", "///", text + "/", text[:-1], text + "\n", "é/é/é/é", "x" * 100_000, text.upper()):
        assert await tokens.check(wrong) is None


async def test_only_hashes_are_kept(tokens: Tokens, tmp_path: Path) -> None:
    secret = (await tokens.create("x")).split("/")[3]
    assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())


async def test_the_first_token_is_written_once(tokens: Tokens, tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert await tokens.write_first(path)
    first = path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600
    assert await tokens.check(first) is not None
    path.unlink()
    assert not await tokens.write_first(path) and not path.exists()


async def test_bad_labels(tokens: Tokens) -> None:
    for label in ("x" * 129, "a\nb"):
        with pytest.raises(InvalidValue):
            await tokens.create(label)


def test_a_capability_is_one_sprites_and_the_last_counts() -> None:
    known = Capabilities()
    first, other = known.new("sprite-1"), known.new("sprite-2")
    assert (known.check(first), known.check(other)) == ("sprite-1", "sprite-2")
    second = known.new("sprite-1")
    assert known.check(first) is None and known.check(second) == "sprite-1"
    known.forget("sprite-1")
    assert known.check(second) is None and known.check(other) == "sprite-2"


@given(st.text())
def test_no_text_breaks_the_check(text: str) -> None:
    known = Capabilities()
    known.new("sprite-1")
    assert known.check(text) is None
