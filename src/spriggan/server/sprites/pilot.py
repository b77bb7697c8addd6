"""What a sprite's pilot serves: described and admitted here, answered there."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.responses import Response

from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.sprites.answer import BYTES, OBJECT, Answer, answers, body, parameters

router = APIRouter(prefix="/v1/sprites/{name}", tags=["commands and files"])

# Between two frames of POST /exec. The official JavaScript client takes what it reads at once for
# one frame (500 commands of 3 frames: 4 misread with 1 ms, 1 with 2 ms, none with 5 ms or 10 ms).
FRAME_GAP = 0.01

SessionId = Annotated[str, Path(description="The session's id.", examples=["1847"])]


_COMMAND = {
    "cmd": "Repeated: the whole argument vector.",
    "path": "The program to run; `cmd[0]` if not given.",
    "env": "Repeated: `KEY=VALUE`.",
    "dir": "Working directory; the home directory if not given.",
    "stdin": "`true` to read the body, or input frames.",
}
_FILE = {"path": "The file.", "workingDir": "What a relative path starts from; `/` if not given."}


@router.get(
    "/exec",
    responses=answers(
        "The sessions; or, upgraded to a WebSocket, a new one (101).", "application/json", OBJECT
    ),
    openapi_extra=parameters(
        **_COMMAND,
        tty="`true` for a terminal.",
        rows="Its height.",
        cols="Its width.",
        id="WebSocket only: attach to this session.",
        max_run_after_disconnect="WebSocket only: how long to run on without a client; `0`: for ever.",
    ),
    summary="List sessions, or open a WebSocket to run a command",
)
async def sessions(engine: EngineOf, name: SpriteName) -> Response:
    """Without an upgrade: the sessions that run, as `{"count", "sessions"}`.

    As a WebSocket this runs a command, and `GET …/exec/{id}` attaches to a session.
    """
    return Answer(engine, name, "/exec")


@router.post(
    "/exec",
    responses=answers(
        "Each HTTP chunk is one frame: a byte 1 (stdout), 2 (stderr) or 3 (exit code, last), then its bytes.",
        "application/octet-stream",
        BYTES,
        400,
    ),
    openapi_extra={
        **parameters(**_COMMAND),
        "requestBody": {"content": {"application/octet-stream": BYTES}},
    },
    summary="Run a command",
)
async def run(engine: EngineOf, name: SpriteName) -> Response:
    """Run a command without a terminal; the body is its standard input."""
    return Answer(engine, name, "/exec", gap=FRAME_GAP)


@router.post(
    "/exec/{id}/kill",
    responses=answers("What happens, one object a line.", "application/x-ndjson", OBJECT, 400, 410),
    openapi_extra=parameters(signal="`SIGTERM` if not given.", timeout="Then `SIGKILL`; `10s` if not given."),
    summary="End a session",
)
async def kill(engine: EngineOf, name: SpriteName, id: SessionId) -> Response:
    """Signal a session's processes. A JSON body `{"signal", "timeout"}` does, too."""
    return Answer(engine, name, f"/exec/{quote(id, safe='')}/kill")


@router.get(
    "/fs/read",
    responses=answers(
        "The file's bytes, or with `Range` some of them (206).", "application/octet-stream", BYTES, 400
    ),
    openapi_extra=parameters(**_FILE),
    summary="Read a file",
)
async def read(engine: EngineOf, name: SpriteName) -> Response:
    """The bytes of one file."""
    return Answer(engine, name, "/fs/read")


@router.put(
    "/fs/write",
    responses=answers("The file, as `{path, size, mode}`.", "application/json", OBJECT, 400, 507),
    openapi_extra={
        **parameters(
            **_FILE, mode="In octal, `0644` if not given.", mkdirParents="`true` to make directories."
        ),
        "requestBody": {"content": {"application/octet-stream": BYTES}},
    },
    summary="Write a file",
)
async def write(engine: EngineOf, name: SpriteName) -> Response:
    """The body becomes the file. Refused while the host is short of space."""
    await engine.check_growth("upload a file")
    return Answer(engine, name, "/fs/write")


@router.get(
    "/fs/list",
    responses=answers("The entries, as `{path, entries, count}`.", "application/json", OBJECT, 400),
    openapi_extra=parameters(**_FILE, recursive="`true` for all below.", pattern="Only names that match."),
    summary="List a directory",
)
async def list_(engine: EngineOf, name: SpriteName) -> Response:
    """What a directory holds, or for a file the file itself."""
    return Answer(engine, name, "/fs/list")


@router.delete(
    "/fs/delete",
    responses=answers("What was deleted, as `{deleted, count}`.", "application/json", OBJECT, 400),
    openapi_extra=parameters(
        **_FILE, recursive="`true` for a directory with all in it.", asRoot="`true`: as root."
    ),
    summary="Delete a file or directory",
)
async def delete(engine: EngineOf, name: SpriteName) -> Response:
    """The parameters may be in a JSON body instead."""
    return Answer(engine, name, "/fs/delete")


_MOVE = {
    "source": "The file or directory.",
    "dest": "Its new name.",
    "workingDir": "What relative paths start from.",
}
_RIGHTS = {"path": "The file or directory.", "workingDir": "What a relative path starts from."}
_TREE = {"recursive": "`true` for all in it.", "asRoot": "`true`: as root."}


@router.post(
    "/fs/rename",
    responses=answers("The names, as `{source, dest}`.", "application/json", OBJECT, 400, 403, 409),
    openapi_extra=body(**_MOVE, asRoot="`true`: as root."),
    summary="Rename a file or directory",
)
async def rename(engine: EngineOf, name: SpriteName) -> Response:
    """What is at the new name is replaced. Works across file systems, such as `/tmp`, too."""
    return Answer(engine, name, "/fs/rename")


@router.post(
    "/fs/copy",
    responses=answers(
        "What was copied, as `{copied, count, totalBytes}`.", "application/json", OBJECT, 400, 403, 507
    ),
    openapi_extra=body(**_MOVE, **_TREE, preserveAttrs="`true`: with times, owner and attributes."),
    summary="Copy a file or directory",
)
async def copy(engine: EngineOf, name: SpriteName) -> Response:
    """A directory is copied into one that is there, or made. Refused while the host is short of space."""
    await engine.check_growth("copy files")
    return Answer(engine, name, "/fs/copy")


@router.post(
    "/fs/chmod",
    responses=answers("What was changed, as `{affected, count}`.", "application/json", OBJECT, 400, 403),
    openapi_extra=body(**_RIGHTS, **_TREE, mode="In octal, such as `0755`."),
    summary="Change a mode",
)
async def chmod(engine: EngineOf, name: SpriteName) -> Response:
    """The mode of a file, or of all in a directory."""
    return Answer(engine, name, "/fs/chmod")


@router.post(
    "/fs/chown",
    responses=answers("What was changed, as `{affected, count}`.", "application/json", OBJECT, 400, 403),
    openapi_extra=body(
        **_RIGHTS, **_TREE, uid="A number or a user's name.", gid="A number or a group's name."
    ),
    summary="Change an owner",
)
async def chown(engine: EngineOf, name: SpriteName) -> Response:
    """The owner, the group, or both, of a file or of all in a directory."""
    return Answer(engine, name, "/fs/chown")
