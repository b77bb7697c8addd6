"""The frames of a WebSocket whose bytes pass through (RFC 6455, 5.2)."""

from __future__ import annotations

import struct

SERVICE_RESTART = 1012  # of IANA's close codes the one that says to connect again
_CLOSE = 0x8  # an opcode
_LONGEST_HEAD = 14  # bytes


class Frames:
    """Follows the frames of one direction, which it does not change."""

    def __init__(self) -> None:
        self._head = b""  # the beginning of one
        self._left = 0  # bytes of the payload that are still to come
        self._counts = False
        self.closed = False  # whether the closing frame has begun

    @property
    def between(self) -> bool:
        """Whether every frame that began has ended."""
        return not self._head and not self._left

    def feed(self, data: bytes) -> bool:
        """Whether any of ``data`` belongs to a message; pings, pongs and the end are none."""
        found = False
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                found |= self._counts
                continue
            head = self._head + data[at : at + _LONGEST_HEAD - len(self._head)]
            if len(head) < 2 or len(head) < (size := _head_size(head[1])):
                self._head = head
                break
            at += size - len(self._head)
            self._head = b""
            opcode = head[0] & 0x0F
            self._counts = opcode < 8
            self.closed |= opcode == _CLOSE
            self._left = _payload_size(head)
            found |= self._counts
        return found


def closing_frame(code: int, reason: str) -> bytes:
    """A server's last frame; ``reason`` has at most 123 bytes."""
    payload = struct.pack(">H", code) + reason.encode()
    return bytes((0x80 | _CLOSE, len(payload))) + payload


def _head_size(second: int) -> int:
    """Length of a frame's head by its second byte."""
    return 2 + {126: 2, 127: 8}.get(second & 0x7F, 0) + (4 if second & 0x80 else 0)


def _payload_size(head: bytes) -> int:
    short = head[1] & 0x7F
    return int.from_bytes(head[2 : {126: 4, 127: 10}[short]]) if short > 125 else short
