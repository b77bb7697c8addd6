"""The official Python client against the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sprites import SpritesClient
from sprites.checkpoint import create_checkpoint, get_checkpoint, list_checkpoints, restore_checkpoint
from sprites.exceptions import APIError, AuthenticationError, ExecError, NotFoundError, SpriteError
from sprites.types import ListOptions, SpriteConfig, URLSettings

from .conftest import Running
from .double import TOKEN


@pytest.fixture
def official(server: Running) -> Iterator[SpritesClient]:
    with SpritesClient(TOKEN, base_url=server.url) as client:
        yield client


def test_sprites(official: SpritesClient) -> None:
    made = official.create_sprite(
        "dev", config=SpriteConfig(ram_mb=512, cpus=1), labels=["ci"], url_settings=URLSettings(auth="public")
    )
    assert made.name == "dev"
    found = official.get_sprite("dev")
    assert found.status == "cold"
    assert found.created_at is not None
    assert found.labels == ["ci"]
    assert official.update_sprite("dev", labels=["x"]).labels == ["x"]
    official.update_url_settings("dev", URLSettings(auth="sprite"))
    for number in range(60):
        official.create_sprite(f"n{number:02}")
    assert len(official.list_all_sprites()) == 61
    page = official.list_sprites(ListOptions(prefix="n", max_results=10))
    assert (len(page.sprites), page.has_more, page.cold) == (10, True, 61)
    with pytest.raises(SpriteError, match="409"):
        official.create_sprite("dev")
    with pytest.raises(SpriteError, match="422"):
        official.create_sprite("Not A Name")
    official.destroy_sprite("dev")
    with pytest.raises(NotFoundError):
        official.get_sprite("dev")
    with pytest.raises(NotFoundError):
        official.destroy_sprite("../n00")


def test_a_wrong_token(server: Running) -> None:
    with SpritesClient("wrong", base_url=server.url) as client, pytest.raises(AuthenticationError):
        client.list_sprites()


def test_commands(official: SpritesClient) -> None:
    sprite = official.create_sprite("dev")
    assert sprite.command("echo", "hi").output() == b"echo hi"
    with pytest.raises(ExecError) as failed:
        sprite.command("fail").run()
    assert failed.value.exit_code() == 5
    assert sprite.command("flood", "20").output() == b"z" * 20 * 65_000
    with pytest.raises(APIError) as refused:
        official.sprite("nobody").command("echo").run()
    assert refused.value.status_code == 404
    assert str(refused.value) == "sprite not found"


def test_control_mode_falls_back(server: Running) -> None:
    with SpritesClient(TOKEN, base_url=server.url, control_mode=True) as client:
        assert client.create_sprite("dev").command("echo", "hi").output() == b"echo hi"


def test_checkpoints(official: SpritesClient, server: Running) -> None:
    sprite = official.create_sprite("dev")
    with create_checkpoint(sprite, "one") as told:
        messages = list(told)
    assert messages[-1].type == "complete"
    assert [known.id for known in list_checkpoints(sprite)] == ["Current", "v1"]
    assert [known.id for known in list_checkpoints(sprite, "v1")] == ["Current", "v1"]
    assert get_checkpoint(sprite, "v1").comment == "one"
    with restore_checkpoint(sprite, "v1") as told:
        assert list(told)[-1].type == "complete"
    with restore_checkpoint(sprite, "v7") as told:
        assert (
            list(told)[-1].error
            == "Failed to restore checkpoint: checkpoint with path checkpoints/v7 not found"
        )
    with pytest.raises(APIError) as refused:
        get_checkpoint(sprite, "v7")
    assert refused.value.status_code == 404
    server.engine.full = True
    with pytest.raises(APIError) as refused:
        create_checkpoint(sprite, "two")
    assert refused.value.status_code == 507
