"""Commands that cannot be started: they leave nothing that holds up a restore; and those that must not be among them."""

from __future__ import annotations

import time
from typing import Any

import serving
from spriggan.linux import process


def test_a_restore_after_failed_commands_is_not_held_up(sprite: Any) -> None:
    serving.finished(sprite.create_checkpoint("one"))
    for _ in range(20):
        failed = sprite.run("true", cwd="/no/such/directory", capture_output=True)
        assert failed.returncode == 126 and b"/no/such/directory" in failed.stderr
    start = time.monotonic()
    serving.finished(sprite.restore_checkpoint("v1"))
    assert time.monotonic() - start < 20
    assert serving.run(sprite, "echo fine") == "fine"


def test_commands_right_after_all_was_killed_inside(server: serving.Server, sprite: Any) -> None:
    """The sprite ends with its first process, and starts again for the next command: none of them fails."""
    init = serving.run_directory(server, sprite.name) / "init"
    for moment in range(10):
        serving.run(sprite, "touch /dev/shm/before")
        sprite.run("sudo", "sh", "-c", "kill -9 -1")  # the shell's own: not every kill(1) takes it so
        serving.until(lambda: process.written_down(init) is None)
        time.sleep(moment / 20)
        for _ in range(10):
            assert sprite.run("true").returncode == 0
        assert serving.run(sprite, "test -e /dev/shm/before && echo there || echo gone") == "gone"
