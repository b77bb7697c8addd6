"""The pipe on which the server waits to hear that a sprite is up, or why it is not."""

from __future__ import annotations

import json
import os
import select


class Report:
    """One line of JSON to the server. ``fd`` is the pipe's end for writing, which is closed after that."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    def still_wanted(self) -> None:
        """Raise ``OSError`` if nobody waits for it any more."""
        poll = select.poll()
        if self._fd is not None:
            poll.register(self._fd, 0)  # a pipe without a reader shows as an error
        if self._fd is None or poll.poll(0):
            raise OSError("the server died while the sprite was starting")

    def say(self, message: dict[str, object]) -> bool:
        """Say how it went; False if nobody waits for that any more. Only what is said first is written."""
        if self._fd is None:
            return False
        fd, self._fd = self._fd, None
        try:
            os.write(fd, json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
