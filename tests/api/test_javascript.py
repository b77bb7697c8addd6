"""The official JavaScript client, unmodified."""

from __future__ import annotations

from typing import Any

import nodejs
import serving


def test_the_first_steps_of_the_readme(server: serving.Server, sprite: Any) -> None:
    script = """
        say((await client.getSprite(sprite.name)).name);
        say((await sprite.execFile("echo", ["hello"])).stdout);
    """
    assert nodejs.run(server, sprite, script) == [sprite.name, "hello\n"]
