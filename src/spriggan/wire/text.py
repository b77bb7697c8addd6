"""What is text, and what JSON only makes look like it."""

from __future__ import annotations


def is_text(value: str) -> bool:
    """Whether ``value`` can be encoded. JSON can carry lone surrogates, which no file, database or process takes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
