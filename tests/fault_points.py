"""Where the server can cut a change in two; what else ``SPRIGGAN_FAULT`` takes is in ``tests/crash/test_matrix.py``."""

from __future__ import annotations

POINTS = [
    "create:intent", "create:disk", "create:done",
    "fork:intent", "fork:disk", "fork:done",
    "checkpoint:intent", "checkpoint:snapshot", "checkpoint:done",
    "restore:intent", "restore:prepared", "restore:stopped", "restore:kept", "restore:swapped",
    "restore:started", "restore:done",
    "destroy:intent", "destroy:stop", "destroy:disk", "destroy:files", "destroy:done",
    "delete_checkpoint:intent", "delete_checkpoint:done", "delete_checkpoint:disk",
]  # fmt: skip
