"""``spriggan file``: files and directories in and out of a sprite."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from spriggan.cli import output
from spriggan.cli.api import Api
from spriggan.cli.command import Group, Settings, pass_settings, sprite_option
from spriggan.cli.endpoint import find, segment
from spriggan.cli.selection import sprite_name
from spriggan.errors import InvalidRequest

CHUNK = 1 << 20
WORKING_DIR = "/home/sprite"


@click.group("file", cls=Group)
def command() -> None:
    """Copy files into a sprite and out of it.

    \b
    Example:
      spriggan file push -s dev notes.txt /home/sprite/notes.txt
      spriggan file pull -s dev -r /home/sprite/project project
    """


@command.command("push")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target")
@sprite_option
@click.option("-r", "--recursive", is_flag=True, help="SOURCE is a directory.")
@click.option("-p", "--preserve", is_flag=True, help="Keep permissions.")
@pass_settings
def push(settings: Settings, source: Path, target: str, recursive: bool, preserve: bool) -> None:
    """Copy the file SOURCE to TARGET in the sprite; a TARGET that ends with / is a directory.

    \b
    Example:
      spriggan file push -s dev notes.txt /home/sprite/
      spriggan file push -s dev -r -p project /home/sprite/project
    """
    if not source.exists():
        raise InvalidRequest(f"there is no {source} here", hint="name a file or a directory of this machine")
    if source.is_dir() and not recursive:
        raise InvalidRequest(f"{source} is a directory", hint="add -r to copy it with all in it")
    if target.endswith("/"):
        target += source.resolve().name
    with Api(find(settings)) as api:
        base = _base(settings)
        count = size = 0
        for file, name in _files(source):
            copied = push_file(api, base, file, f"{target}/{name}" if name else target, preserve=preserve)
            count, size = count + 1, size + copied
    click.echo(f"Copied {count} files, {output.size(size)}")


@command.command("pull")
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@sprite_option
@click.option("-r", "--recursive", is_flag=True, help="SOURCE is a directory.")
@click.option("-p", "--preserve", is_flag=True, help="Keep permissions.")
@pass_settings
def pull(settings: Settings, source: str, target: Path, recursive: bool, preserve: bool) -> None:
    """Copy the file SOURCE of the sprite to TARGET here. No file here is ever half written.

    \b
    Example:
      spriggan file pull -s dev /home/sprite/result.csv .
      spriggan file pull -s dev -r /home/sprite/project project
    """
    with Api(find(settings)) as api:
        base = _base(settings)
        entries = _entries(api, base, source, recursive=recursive)
        if len(entries) == 1 and not entries[0].name and target.is_dir():
            target /= Path(source).name
        size = sum(_pull_file(api, base, each, target, preserve=preserve) for each in entries)
    click.echo(f"Copied {len(entries)} files, {output.size(size)}")


def push_file(api: Api, base: str, source: Path, target: str, *, preserve: bool = False) -> int:
    """Copy one file into a sprite; return its size."""
    params = {"path": target, "workingDir": WORKING_DIR, "mkdirParents": "true"}
    if preserve:
        params["mode"] = f"{stat.S_IMODE(source.stat().st_mode):04o}"
    with source.open("rb") as stream:
        written: dict[str, Any] = api.upload(f"{base}/write", iter(lambda: stream.read(CHUNK), b""), params)
    return int(written["size"])


def _files(source: Path) -> Iterator[tuple[Path, str]]:
    """The files to copy, and their names below the target; links are followed, for files only."""
    if not source.is_dir():
        yield source, ""
        return
    for directory, _, names in os.walk(source):
        for name in sorted(names):
            file = Path(directory, name)
            if file.is_file():
                yield file, str(file.relative_to(source))


@dataclass(frozen=True)
class _Remote:
    """A file of the sprite; ``name`` is its place below the directory that is copied, if one is."""

    path: str
    name: str
    mode: int


def _entries(api: Api, base: str, source: str, *, recursive: bool) -> list[_Remote]:
    """The file ``source``, or the files below the directory ``source``."""
    query = {"path": source, "workingDir": WORKING_DIR, "recursive": "true" if recursive else "false"}
    listing = api.get(f"{base}/list", query)
    children = listing["entries"]
    if len(children) == 1 and children[0]["path"] == listing["path"] and not children[0]["isDir"]:
        return [_Remote(children[0]["path"], "", int(children[0]["mode"], 8))]
    if not recursive:
        raise InvalidRequest(f"{source} is a directory", hint="add -r to copy it with all in it")
    top = listing["path"].rstrip("/") + "/"
    return [
        _Remote(child["path"], child["path"].removeprefix(top), int(child["mode"], 8))
        for child in children
        if child["type"] == "file"
    ]


def _inside(target: Path, name: str) -> Path:
    """``name`` below ``target``. Names come from the sprite and must not lead elsewhere."""
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts:
        raise InvalidRequest(f"the sprite names a file {name!r}, which is not below the directory", hint="")
    return target.joinpath(*parts)


def _pull_file(api: Api, base: str, remote: _Remote, target: Path, *, preserve: bool) -> int:
    target = _inside(target, remote.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".spriggan-", delete=False) as stream:
        new = Path(stream.name)
        try:
            with api.download(f"{base}/read", {"path": remote.path, "workingDir": WORKING_DIR}) as pieces:
                for piece in pieces:
                    size += stream.write(piece)
            stream.flush()
            umask = os.umask(0)
            os.umask(umask)
            new.chmod(remote.mode & 0o777 if preserve else 0o666 & ~umask)
            new.rename(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    return size


def _base(settings: Settings) -> str:
    return f"/v1/sprites/{segment(sprite_name(settings))}/fs"
