"""Where what guests are made of is kept: making it takes minutes, and tests run often."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import serving

CACHE = serving.IMAGE_CACHE.parent / "hosts"
_KEPT_S = 24 * 3600.0


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The file or directory of ``kind`` for ``key``, made by ``make`` at a path of its own if it is missing.

    What other inputs gave, and nobody asked for since yesterday, is deleted.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    found = CACHE / f"{kind}-{key[:16]}"
    with _lock(kind):
        if not found.exists():
            draft = CACHE / f"{kind}.draft"
            _remove(draft)
            try:
                make(draft)
                draft.rename(found)
            except BaseException:
                _remove(draft)
                raise
        os.utime(found)
        for other in CACHE.glob(f"{kind}-*"):
            if time.time() - other.stat().st_mtime > _KEPT_S:
                _remove(other)
    return found


def digest(parts: Iterable[bytes]) -> str:
    """A name for inputs."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def contents(*paths: Path) -> Iterator[bytes]:
    """Names and bytes of files, and of those below directories."""
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                yield os.fsencode(file.relative_to(path.parent))
                yield file.read_bytes()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _lock(kind: str) -> Iterator[None]:
    fd = os.open(CACHE / f"{kind}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
