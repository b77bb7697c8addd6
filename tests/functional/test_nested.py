"""Containers inside a sprite, with podman's defaults."""

from __future__ import annotations

from typing import Any

import pytest

import serving

PROGRAM = '#include <stdio.h>\nint main(void) { puts("from inside the inside"); return 0; }\n'


@pytest.mark.slow
def test_podman_runs_an_imported_image(sprite: Any) -> None:
    install = "sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq podman"
    serving.run(sprite, f"{install} >/tmp/apt.log 2>&1 || {{ tail -20 /tmp/apt.log; exit 1; }}")
    (sprite.filesystem("/home/sprite") / "p.c").write_text(PROGRAM)
    serving.run(
        sprite, "mkdir i && cc -static -o i/p p.c && tar -C i -cf i.tar p && sudo podman import -q i.tar tiny"
    )
    assert serving.run(sprite, "sudo podman run --rm tiny /p") == "from inside the inside"
    # And without root, in a user namespace inside the sprite's.
    serving.run(sprite, "podman import -q i.tar tiny")
    assert serving.run(sprite, "podman run --rm tiny /p") == "from inside the inside"
