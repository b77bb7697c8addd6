"""Errors that a person reads: what happened, why, and the way out.

The server turns them into status codes in one table, the command line into one
sentence and a hint.
"""

from __future__ import annotations


class SprigganError(Exception):
    """Base of all errors meant for people. ``hint`` says what to do; ``code`` is stable for programs."""

    code = "internal"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidRequest(SprigganError):
    """What was given cannot be right, whatever the state (400)."""

    code = "invalid_request"


class InvalidValue(SprigganError):
    """Well-formed, but outside what is allowed here (422)."""

    code = "invalid_value"


class NotFound(SprigganError):
    """The named thing does not exist (404)."""

    code = "not_found"


class AlreadyExists(SprigganError):
    """The name is taken (409)."""

    code = "already_exists"


class Conflict(SprigganError):
    """Not possible in the present state (409)."""

    code = "conflict"


class LimitReached(SprigganError):
    """More than this server lets anybody have (429). ``limit`` is how much that is."""

    def __init__(self, code: str, message: str, *, limit: int, count: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.limit = limit
        self.count = count


class RateLimited(LimitReached):
    """Too often; ``limit`` times in ``window_s`` seconds is allowed, and again in ``retry_after_s``."""

    def __init__(
        self, code: str, message: str, *, limit: int, count: int, window_s: int, retry_after_s: int
    ) -> None:
        super().__init__(
            code, message, limit=limit, count=count, hint=f"try again in {retry_after_s} seconds"
        )
        self.window_s = window_s
        self.retry_after_s = retry_after_s


class NoSpace(SprigganError):
    """Too little space is left to do this safely (507)."""

    code = "no_space"


class Unavailable(SprigganError):
    """Cannot be done now, may work later (503)."""

    code = "unavailable"


class MissingCapability(SprigganError):
    """This host lacks a program or a kernel feature; the hint says how to get it."""

    code = "missing_capability"


class Broken(SprigganError):
    """Something that should work failed (500); the message carries the cause."""

    code = "broken"


class DamagedDisk(Broken):
    """The file system on a sprite's disk does not mount (500)."""

    code = "damaged_disk"
