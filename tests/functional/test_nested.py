"""Containers inside a sprite, with podman's defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import serving

PROGRAM = '#include <stdio.h>\nint main(void) { puts("from inside the inside"); return 0; }\n'


# An image that has podman already, where somebody made one: installing it takes the network and minutes.
READY = "with-podman"
INSTALL = "sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq podman"


@pytest.fixture
def sprite(server: serving.Server, new_name: Callable[[], str]) -> Iterator[Any]:
    name = new_name()
    ready = (server.data / "images" / "refs" / f"{READY}.json").exists()
    with server.http() as http:
        body = {"name": name, "image": READY} if ready else {"name": name}
        http.post("/v1/sprites", json=body).raise_for_status()
    made = server.client().get_sprite(name)
    if not ready:
        serving.run(made, f"{INSTALL} >/tmp/apt.log 2>&1 || {{ tail -20 /tmp/apt.log; exit 1; }}")
    yield made
    made.delete()


@pytest.mark.slow
def test_podman_runs_an_imported_image(sprite: Any) -> None:
    (sprite.filesystem("/home/sprite") / "p.c").write_text(PROGRAM)
    serving.run(
        sprite, "mkdir i && cc -static -o i/p p.c && tar -C i -cf i.tar p && sudo podman import -q i.tar tiny"
    )
    assert serving.run(sprite, "sudo podman run --rm tiny /p") == "from inside the inside"
    # And without root, in a user namespace inside the sprite's.
    serving.run(sprite, "podman import -q i.tar tiny")
    assert serving.run(sprite, "podman run --rm tiny /p") == "from inside the inside"
