"""Walking a tree that others may change meanwhile, by descriptors of its directories.

So no directory is taken for another that was put in its place, and a tree may be deeper than a
path can be long, or than Python recurses. Symlinks are entries, never followed.
"""

from __future__ import annotations

import contextlib
import os
import resource
import stat
from collections.abc import Iterator
from dataclasses import dataclass

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Step:
    """An entry of a tree, as a name in an open directory. ``path`` is relative to the top, which is ``""``.

    A directory comes twice: before what is in it, and ``after`` that.
    """

    directory: int
    name: str
    path: str
    info: os.stat_result
    after: bool = False

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.info.st_mode)


def walk(directory: int, name: str) -> Iterator[Step]:
    """Yield ``name`` in ``directory`` and all below it. What is gone meanwhile is left out.

    Raises ``OSError`` for what may not be read.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    top = Step(directory, name, "", os.stat(name, dir_fd=directory, follow_symlinks=False))
    yield top
    if not top.is_directory:
        return
    held = [(top, *_enter(top))]
    try:
        while held:
            above, fd, names = held[-1]
            child = next(names, None)
            if child is None:
                held.pop()
                os.close(fd)
                yield Step(above.directory, above.name, above.path, above.info, after=True)
                continue
            with contextlib.suppress(FileNotFoundError):
                info = os.stat(child, dir_fd=fd, follow_symlinks=False)
                step = Step(fd, child, f"{above.path}/{child}".lstrip("/"), info)
                yield step
                if step.is_directory:
                    held.append((step, *_enter(step)))
    finally:
        for _, fd, _ in held:
            os.close(fd)


def _enter(step: Step) -> tuple[int, Iterator[str]]:
    fd = os.open(step.name, OPEN_DIRECTORY, dir_fd=step.directory)
    return fd, iter(os.listdir(fd))
