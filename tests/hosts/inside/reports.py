"""Inside a guest: tell the test outside what is about to be done and what was acknowledged.

Both go out at once, over a virtio serial port. Before a change begins the outside has to answer, so
that it knows for every change which writes to the disk came before it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PORT = Path("/dev/virtio-ports/reports")


class Reports:
    """The port, for several threads."""

    def __init__(self) -> None:
        self._port = PORT.open("r+b", buffering=0)
        self._lock = threading.Lock()
        self._number = 0

    @contextmanager
    def change(self, what: str, sprite: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """A change of ``sprite``: announced before the block, and acknowledged if the block ends well.

        What the block puts into the yielded dictionary goes out with the acknowledgement.
        """
        with self._lock:
            self._number += 1
            number = self._number
            self._send({"say": "begin", "number": number, "what": what, "sprite": sprite, **facts})
            assert self._port.read(1) == b"\n"
        learned: dict[str, Any] = {}
        yield learned
        self.say("done", number=number, **learned)

    def say(self, what: str, **facts: Any) -> None:
        """Anything else."""
        with self._lock:
            self._send({"say": what, **facts})

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        while data:
            data = data[self._port.write(data) or 0 :]
