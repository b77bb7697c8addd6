"""The root of a sprite is never deleted, however its path is written."""

from __future__ import annotations

import httpx
import pytest

PATHS = ["/", "/home/..", "/home/../.", "/./"]


def delete(http: httpx.Client, path: str) -> httpx.Response:
    return http.delete("/fs/delete", params={"path": path, "recursive": "true", "asRoot": "true"})


def names(http: httpx.Client) -> list[str]:
    answer = http.get("/fs/list", params={"path": "/", "asRoot": "true"})
    return [entry["name"] for entry in answer.json().get("entries", [])]


@pytest.mark.parametrize("path", PATHS)
def test_the_root_is_not_deleted(http: httpx.Client, path: str) -> None:
    assert delete(http, path).status_code == 403
    assert "home" in names(http)


def test_the_root_is_not_deleted_by_its_other_name(http: httpx.Client) -> None:
    """The last test here: the sprite is gone after it."""
    assert delete(http, "//").status_code == 403
    assert "home" in names(http)
