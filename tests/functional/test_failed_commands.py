"""Commands that cannot be started leave nothing that holds up a restore."""

from __future__ import annotations

import time
from typing import Any

import serving


def test_a_restore_after_failed_commands_is_not_held_up(sprite: Any) -> None:
    serving.finished(sprite.create_checkpoint("one"))
    for _ in range(20):
        failed = sprite.run("true", cwd="/no/such/directory", capture_output=True)
        assert failed.returncode == 126 and b"/no/such/directory" in failed.stderr
    start = time.monotonic()
    serving.finished(sprite.restore_checkpoint("v1"))
    assert time.monotonic() - start < 20
    assert serving.run(sprite, "echo fine") == "fine"
