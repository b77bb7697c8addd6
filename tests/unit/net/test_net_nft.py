"""What is said of an nft that does not do its work."""

from __future__ import annotations

from pathlib import Path

import pytest

from spriggan.errors import Broken, MissingCapability, SprigganError
from spriggan.net import nft


@pytest.mark.parametrize(
    ("program", "kind", "message"),
    [
        ("kill -SEGV $$", Broken, "nft was ended by signal 11"),
        ("echo no such table >&2; exit 1", Broken, "no such table"),
        (None, MissingCapability, "nft is missing"),
    ],
)
def test_its_end_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str | None,
    kind: type[SprigganError],
    message: str,
) -> None:
    if program is not None:
        (tmp_path / "nft").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nft").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for work in (nft.tables, lambda: nft.apply("flush ruleset")):
        with pytest.raises(kind, match=message) as error:
            work()
        if message != "no such table":
            assert error.value.hint
