"""Listing a directory, or a tree, or the one entry of a file."""

from __future__ import annotations

import errno
import fnmatch
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

from spriggan.pilot.files.answers import MAX_ENTRIES, entry, reply
from spriggan.pilot.files.reading import visible


def list_(request: dict[str, Any], stream: socket.socket) -> None:
    """Answer with a directory's children, or with the file itself; links at the top are followed."""
    shown = os.path.normpath(request["path"])
    path = visible(request["path"])
    info = os.stat(path)
    if not stat.S_ISDIR(info.st_mode):
        entries = [entry(shown, os.path.basename(shown), info)]
    else:
        entries = list(_children(path, shown, request["recursive"], request["pattern"]))
        if request["itself"]:
            entries.insert(0, entry(shown, "", info))
    reply(stream, path=shown, entries=entries, count=len(entries))


def _children(top: str, shown: str, recursive: bool, pattern: str | None) -> Iterator[dict[str, Any]]:
    wanted = pattern.strip("/").split("/") if pattern else []
    recursive = recursive or len(wanted) > 1
    count = 0
    pending = [""]
    while pending:
        directory = pending.pop(0)
        try:
            names = sorted(os.listdir(os.path.join(top, directory)))
        except OSError:
            if not directory:
                raise
            continue  # below, what may not be read is left out
        for name in names:
            relative = os.path.join(directory, name)
            try:
                info = os.lstat(os.path.join(top, relative))
            except OSError:
                continue  # gone meanwhile, not to be looked at, or deeper than a path can be long
            if recursive and stat.S_ISDIR(info.st_mode):
                pending.append(relative)
            if wanted and not matches(relative, wanted):
                continue
            count += 1
            if count > MAX_ENTRIES:
                raise OSError(
                    errno.EINVAL, f"more than {MAX_ENTRIES} entries; list a part of the tree", shown
                )
            yield entry(os.path.join(shown, relative), name, info)


def matches(relative: str, wanted: list[str]) -> bool:
    """Whether a path fits a glob pattern, both in parts: ``*`` stays within one, ``**`` spans any number.

    A pattern of one part is for names, at any depth.
    """
    parts = relative.split("/")
    if len(wanted) == 1:
        return wanted[0] == "**" or fnmatch.fnmatchcase(parts[-1], wanted[0])
    # Where in the pattern a match of the parts so far may stand.
    places = _with_empty_spans({0}, wanted)
    for part in parts:
        after = set()
        for place in places:
            if place < len(wanted) and wanted[place] == "**":
                after.add(place)
            elif place < len(wanted) and fnmatch.fnmatchcase(part, wanted[place]):
                after.add(place + 1)
        places = _with_empty_spans(after, wanted)
    return len(wanted) in places


def _with_empty_spans(places: set[int], wanted: list[str]) -> set[int]:
    for place in sorted(places):
        while place < len(wanted) and wanted[place] == "**":
            place += 1
            places.add(place)
    return places
