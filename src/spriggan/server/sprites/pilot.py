"""What a sprite's pilot serves: described and admitted here, answered there."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.responses import Response

from spriggan.server.routing import EngineOf, SpriteName
from spriggan.server.sprites import pilot_models as models
from spriggan.server.sprites.answer import Answer
from spriggan.server.sprites.described import (
    BYTES,
    DURATION,
    FLAG,
    MODE,
    NDJSON,
    OCTETS,
    PATH,
    SIZE,
    WORDS,
    answers,
    body,
    parameter,
    query,
    raw_body,
)

router = APIRouter(prefix="/v1/sprites/{name}", tags=["commands and files"], default_response_class=Response)

# Between two frames of POST /exec. The official JavaScript client takes what it reads at once for
# one frame (500 commands of 3 frames: 4 misread with 1 ms, 1 with 2 ms, none with 5 ms or 10 ms;
# with 10 ms and a machine that has four times the work it can do, a few in a hundred).
FRAME_GAP = 0.02

SessionId = Annotated[str, Path(description="The session's id.", examples=["1847"])]


_COMMAND = (
    parameter("cmd", "Repeated: the whole argument vector.", WORDS),
    parameter("path", "The program to run; `cmd[0]` if not given."),
    parameter("env", "Repeated: `KEY=VALUE`.", WORDS),
    parameter("dir", "Working directory, absolute; the home directory if not given."),
    parameter("stdin", "To read the body, or input frames.", FLAG),
)
_FILE = (
    parameter("path", "The file.", PATH, required=True),
    parameter("workingDir", "What a relative path starts from; `/` if not given."),
    parameter("asRoot", "As root, not as the sprite's user.", FLAG),
)
# What can be said of a path: nothing there, no right to, in the way.
_REFUSED = (400, 403, 404, 409)


@router.get(
    "/exec",
    responses=answers(
        "The sessions; or, upgraded to a WebSocket, a new one (101).", models.SessionsReply, 400
    ),
    openapi_extra=query(
        *_COMMAND,
        parameter("tty", "WebSocket only: a terminal.", FLAG),
        parameter("rows", "WebSocket only: its height.", SIZE),
        parameter("cols", "WebSocket only: its width.", SIZE),
        parameter("id", "WebSocket only: attach to this session."),
        parameter(
            "max_run_after_disconnect",
            "WebSocket only: how long to run on without a client; `0`: for ever.",
            DURATION,
        ),
    ),
    summary="List sessions, or open a WebSocket to run a command",
)
async def sessions(engine: EngineOf, name: SpriteName) -> Response:
    """Without an upgrade: the sessions that run.

    As a WebSocket this runs a command, and `GET …/exec/{id}` attaches to a session.
    """
    return Answer(engine, name, "/exec")


@router.post(
    "/exec",
    responses=answers(
        "Each HTTP chunk is one frame: a byte 1 (stdout), 2 (stderr) or 3 (exit code, last), then its bytes.",
        BYTES,
        400,
        media_type=OCTETS,
    ),
    openapi_extra={**query(*_COMMAND), **raw_body()},
    summary="Run a command",
)
async def run(engine: EngineOf, name: SpriteName) -> Response:
    """Run a command without a terminal; the body is its standard input."""
    return Answer(engine, name, "/exec", gap=FRAME_GAP)


@router.post(
    "/exec/{id}/kill",
    responses=answers("What happens.", models.KillEvent, 400, 410, media_type=NDJSON),
    openapi_extra={
        **query(
            parameter("signal", "`SIGTERM` if not given."),
            parameter("timeout", "Then `SIGKILL`; `10s` if not given.", DURATION),
        ),
        **body(models.KillBody, required=False),
    },
    summary="End a session",
)
async def kill(engine: EngineOf, name: SpriteName, id: SessionId) -> Response:
    """Signal a session's processes, as the query or the body says."""
    return Answer(engine, name, f"/exec/{quote(id, safe='')}/kill")


@router.get(
    "/fs/read",
    responses={
        **answers("The file's bytes.", BYTES, *_REFUSED, 416, media_type=OCTETS),
        206: {"description": "With `Range`: some of them.", "content": {OCTETS: {"schema": BYTES}}},
    },
    openapi_extra=query(*_FILE),
    summary="Read a file",
)
async def read(engine: EngineOf, name: SpriteName) -> Response:
    """The bytes of one file."""
    return Answer(engine, name, "/fs/read")


@router.put(
    "/fs/write",
    responses=answers("The file.", models.WriteReply, *_REFUSED),
    openapi_extra={
        **query(
            *_FILE,
            parameter("mode", "In octal, `0644` if not given.", MODE),
            parameter("mkdirParents", "Make directories that are not there; so it is if not given.", FLAG),
        ),
        **raw_body(),
    },
    summary="Write a file",
)
async def write(engine: EngineOf, name: SpriteName) -> Response:
    """The body becomes the file. Refused while the host is short of space."""
    await engine.check_growth("upload a file")
    return Answer(engine, name, "/fs/write")


@router.get(
    "/fs/list",
    responses=answers("The entries.", models.ListReply, *_REFUSED),
    openapi_extra=query(
        *_FILE,
        parameter("recursive", "All below.", FLAG),
        parameter("pattern", "Only names that match.", {"type": "string", "maxLength": 1024}),
    ),
    summary="List a directory",
)
async def list_(engine: EngineOf, name: SpriteName) -> Response:
    """What a directory holds, or for a file the file itself."""
    return Answer(engine, name, "/fs/list")


@router.delete(
    "/fs/delete",
    responses=answers("What was deleted.", models.DeleteReply, *_REFUSED),
    openapi_extra={
        **query(
            parameter("path", "The file or directory.", PATH),
            *_FILE[1:],
            parameter("recursive", "A directory with all in it.", FLAG),
        ),
        **body(models.DeleteBody, required=False),
    },
    summary="Delete a file or directory",
)
async def delete(engine: EngineOf, name: SpriteName) -> Response:
    """The parameters are in the query, or in the body."""
    return Answer(engine, name, "/fs/delete")


@router.post(
    "/fs/rename",
    responses=answers("The names.", models.RenameReply, *_REFUSED),
    openapi_extra=body(models.RenameBody),
    summary="Rename a file or directory",
)
async def rename(engine: EngineOf, name: SpriteName) -> Response:
    """What is at the new name is replaced. Works across file systems, such as `/tmp`, too."""
    return Answer(engine, name, "/fs/rename")


@router.post(
    "/fs/copy",
    responses=answers("What was copied.", models.CopyReply, *_REFUSED),
    openapi_extra=body(models.CopyBody),
    summary="Copy a file or directory",
)
async def copy(engine: EngineOf, name: SpriteName) -> Response:
    """A directory is copied into one that is there, or made. Refused while the host is short of space."""
    await engine.check_growth("copy files")
    return Answer(engine, name, "/fs/copy")


@router.post(
    "/fs/chmod",
    responses=answers("What was changed.", models.ChmodReply, *_REFUSED),
    openapi_extra=body(models.ChmodBody),
    summary="Change a mode",
)
async def chmod(engine: EngineOf, name: SpriteName) -> Response:
    """The mode of a file, or of all in a directory."""
    return Answer(engine, name, "/fs/chmod")


@router.post(
    "/fs/chown",
    responses=answers("What was changed.", models.ChownReply, *_REFUSED),
    openapi_extra=body(models.ChownBody),
    summary="Change an owner",
)
async def chown(engine: EngineOf, name: SpriteName) -> Response:
    """The owner, the group, or both, of a file or of all in a directory."""
    return Answer(engine, name, "/fs/chown")
