"""What can be done with files, as run by a child that is already inside the sprite.

Files that are not regular are never read or written: a FIFO or a device could hang or surprise.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from spriggan.pilot.files import account, listing, reading, rights, trees, watching, writing

_OPERATIONS: dict[str, Callable[[dict[str, Any], socket.socket], None]] = {
    "read": reading.read,
    "write": writing.write,
    "list": listing.list_,
    "delete": trees.delete,
    "rename": trees.rename,
    "copy": trees.copy,
    "chmod": rights.chmod,
    "chown": rights.chown,
    "watch": watching.watch,
}
# These put a new file in the place of one whose owner may be somebody else.
_KEEP_ROOT = {"write", "copy"}


def perform(request: dict[str, Any], stream: socket.socket) -> None:
    """Do the operation that ``request["op"]`` names as ``request["user"]``.

    Raises ``OSError``, ``ValueError``, ``KeyError``.
    """
    operation = request["op"]
    account.become(str(request["user"]), keep_root=operation in _KEEP_ROOT)
    _OPERATIONS[operation](request, stream)
