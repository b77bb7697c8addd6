"""Where sprites are reached: what an operator may say, and whose a Host is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spriggan.errors import InvalidRequest
from spriggan.server.logins import Logins
from spriggan.server.urls import Urls


def test_without_anything_said_it_is_this_machine() -> None:
    urls = Urls.here(7878)
    assert (urls.template, urls.secure) == ("http://{name}.sprites.localhost:7878", False)


def test_behind_a_proxy() -> None:
    urls = Urls.parse("https://{name}.sprites.example.com/")
    assert (urls.template, urls.domain, urls.scheme) == (
        "https://{name}.sprites.example.com",
        "sprites.example.com",
        "https",
    )


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "{name}.example.com",
        "ftp://{name}.example.com",
        "https://example.com",
        "https://example.com/{name}",
        "https://{name}.example.com/app",
        "https://{name}.example.com?x",
        "https://{name}.example.com#x",
        "https://user@{name}.example.com",
        "https://{name}.{name}.example.com",
        "https://x{name}.example.com",
        "https://{name}example.com",
        "https://{name}.",
        "https://{name}..com",
        "https://{name}.-a.com",
        "https://{name}.exämple.com",
        "https://{name}.10.0.0.1",
        "https://{name}.example.com:99999",
        "https://{name}.example.com:x",
        "https://{name}.[::1]",
        f"https://{{name}}.{'a.' * 120}com",
    ],
)
def test_what_is_no_url_of_sprites(wrong: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Urls.parse(wrong)
    assert "{name}" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"dev.sprites.localhost", "dev"),
        (b"DEV.Sprites.LocalHost:7878", "dev"),
        (b"dev.sprites.localhost.", "dev"),
        (b"dev.sprites.localhost.:1", "dev"),
        (b"a.dev.sprites.localhost", ""),  # below the domain, so no API, and nobody's
        (b"\xff.sprites.localhost", "\xff"),
        (b".sprites.localhost", ""),
        (b"sprites.localhost", None),
        (b"localhost", None),
        (b"xsprites.localhost", None),
        (b"dev.sprites.localhost.evil.com", None),
        (b"127.0.0.1:7878", None),
        (b"[::1]:7878", None),
        (b"", None),
        (b"dev.sprites.localhost" * 10_000, ""),
    ],
)
def test_whose_a_host_is(host: bytes, name: str | None) -> None:
    assert Urls.here(7878).sprite_at(host) == name


@given(st.binary())
def test_any_host_is_somebodys(host: bytes) -> None:
    Urls.here(1).sprite_at(host)
    assert Urls.here(1).sprite_at(host.replace(b":", b"") + b".sprites.localhost") is not None


def test_a_login_is_for_one_sprite_and_not_for_ever() -> None:
    logins = Logins(b"k" * 32)
    value = logins.issue("sprite-1", "t1")
    assert logins.token_id(value, "sprite-1") == "t1"
    assert logins.token_id(value, "sprite-2") is None
    assert Logins(b"l" * 32).token_id(value, "sprite-1") is None
    assert logins.token_id(value.replace("t1", "t2"), "sprite-1") is None
    assert logins.token_id(Logins(b"k" * 32, lasts_s=-1).issue("sprite-1", "t1"), "sprite-1") is None
    token, until, mac = value.split(".")
    assert logins.token_id(f"{token}.{int(until) + 1}.{mac}", "sprite-1") is None
    # Parts that run into each other must not sign the same.
    assert logins.issue("a", "b\nc") != logins.issue("a\nb", "c")


@given(st.text())
def test_no_text_is_a_login(value: str) -> None:
    assert Logins(b"k" * 32).token_id(value, "sprite-1") is None


def test_the_key_is_kept_and_made_anew_when_it_is_none(tmp_path: object) -> None:
    path = tmp_path / "login.key"  # type: ignore[operator]
    first = Logins.of(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Logins.of(path) == first
    path.write_text("nonsense")
    assert Logins.of(path) != first
