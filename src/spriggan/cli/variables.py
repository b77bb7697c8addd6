"""Environment variables as they are given to ``--env``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from spriggan.errors import InvalidRequest

_NEXT = re.compile(r",(?=[A-Za-z_][A-Za-z0-9_]*=)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """Read ``K=V,K2=V2`` texts. A comma that no ``NAME=`` follows belongs to the value."""
    variables: dict[str, str] = {}
    for text in texts:
        for assignment in _NEXT.split(text):
            name, equals, value = assignment.partition("=")
            if not equals or not _NAME.fullmatch(name):
                raise InvalidRequest(f"{assignment!r} is not NAME=VALUE", hint="for example: LANG=C,DEBUG=1")
            variables[name] = value
    return variables
