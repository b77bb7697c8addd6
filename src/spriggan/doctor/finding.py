"""What a check found out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a capability stands."""

    WORKS = "works"
    LIMITED = "limited"  # usable, at a cost
    MISSING = "missing"
    FAILED = "failed"  # nothing is known: the check itself broke or ran out of time
    UNTRIED = "untried"  # nothing is known: this process may not try


@dataclass(frozen=True)
class Finding:
    """One capability of this machine, in words for people."""

    status: Status
    detail: str  # what was seen
    costs: str = ""  # what that costs
    fix: str = ""  # the command that mends it, or what to do where no command can

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "status": self.status.value}


def works(detail: str) -> Finding:
    return Finding(Status.WORKS, detail)


def limited(detail: str, *, costs: str, fix: str = "") -> Finding:
    return Finding(Status.LIMITED, detail, costs, fix)


def missing(detail: str, *, costs: str = "", fix: str = "") -> Finding:
    return Finding(Status.MISSING, detail, costs, fix)


def failed(detail: str) -> Finding:
    return Finding(Status.FAILED, f"the check itself failed: {detail}")


def untried(detail: str, *, fix: str = "") -> Finding:
    return Finding(Status.UNTRIED, detail, fix=fix)
