"""What a sprite's pilot serves: described and admitted here, answered there."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spriggan.engine import Engine
from spriggan.server.errors import failures
from spriggan.server.forward import forward
from spriggan.server.routing import EngineOf, SpriteName

router = APIRouter(prefix="/v1/sprites/{name}", tags=["commands and files"])

# Between two frames of POST /exec. The official JavaScript client takes what it reads at once for
# one frame (500 commands of 3 frames: 4 misread with 1 ms, 1 with 2 ms, none with 5 ms or 10 ms).
FRAME_GAP = 0.01

SessionId = Annotated[str, Path(description="The session's id.", examples=["1847"])]


def _parameters(**described: str) -> dict[str, Any]:
    """Query parameters for the description; the pilot is who reads them."""
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": text,
                "schema": {"type": "string"},
            }
            for name, text in described.items()
        ]
    }


def _body(**described: str) -> dict[str, Any]:
    """The fields of a JSON body for the description; the pilot is who reads them."""
    fields = {name: {"description": text} for name, text in described.items()}
    return {
        "requestBody": {"content": {"application/json": {"schema": {"type": "object", "properties": fields}}}}
    }


_COMMAND = {
    "cmd": "Repeated: the whole argument vector.",
    "path": "The program to run; `cmd[0]` if not given.",
    "env": "Repeated: `KEY=VALUE`.",
    "dir": "Working directory; the home directory if not given.",
    "stdin": "`true` to read the body, or input frames.",
}
_FILE = {"path": "The file.", "workingDir": "What a relative path starts from; `/` if not given."}
_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_OBJECT: dict[str, Any] = {"schema": {"type": "object"}}


def _answers(
    description: str, media_type: str, content: dict[str, Any], *errors: int
) -> dict[int | str, Any]:
    return {
        200: {"description": description, "content": {media_type: content}},
        **failures(404, 503, *errors),
    }


@router.get(
    "/exec",
    responses=_answers(
        "The sessions; or, upgraded to a WebSocket, a new one (101).", "application/json", _OBJECT
    ),
    openapi_extra=_parameters(
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
    return _Answer(engine, name, "/exec")


@router.post(
    "/exec",
    responses=_answers(
        "Each HTTP chunk is one frame: a byte 1 (stdout), 2 (stderr) or 3 (exit code, last), then its bytes.",
        "application/octet-stream",
        _BYTES,
        400,
    ),
    openapi_extra={
        **_parameters(**_COMMAND),
        "requestBody": {"content": {"application/octet-stream": _BYTES}},
    },
    summary="Run a command",
)
async def run(engine: EngineOf, name: SpriteName) -> Response:
    """Run a command without a terminal; the body is its standard input."""
    return _Answer(engine, name, "/exec", gap=FRAME_GAP)


@router.post(
    "/exec/{id}/kill",
    responses=_answers("What happens, one object a line.", "application/x-ndjson", _OBJECT, 400, 410),
    openapi_extra=_parameters(
        signal="`SIGTERM` if not given.", timeout="Then `SIGKILL`; `10s` if not given."
    ),
    summary="End a session",
)
async def kill(engine: EngineOf, name: SpriteName, id: SessionId) -> Response:
    """Signal a session's processes. A JSON body `{"signal", "timeout"}` does, too."""
    return _Answer(engine, name, f"/exec/{quote(id, safe='')}/kill")


@router.get(
    "/fs/read",
    responses=_answers(
        "The file's bytes, or with `Range` some of them (206).", "application/octet-stream", _BYTES, 400
    ),
    openapi_extra=_parameters(**_FILE),
    summary="Read a file",
)
async def read(engine: EngineOf, name: SpriteName) -> Response:
    """The bytes of one file."""
    return _Answer(engine, name, "/fs/read")


@router.put(
    "/fs/write",
    responses=_answers("The file, as `{path, size, mode}`.", "application/json", _OBJECT, 400, 507),
    openapi_extra={
        **_parameters(
            **_FILE, mode="In octal, `0644` if not given.", mkdirParents="`true` to make directories."
        ),
        "requestBody": {"content": {"application/octet-stream": _BYTES}},
    },
    summary="Write a file",
)
async def write(engine: EngineOf, name: SpriteName) -> Response:
    """The body becomes the file. Refused while the host is short of space."""
    await engine.check_growth("upload a file")
    return _Answer(engine, name, "/fs/write")


@router.get(
    "/fs/list",
    responses=_answers("The entries, as `{path, entries, count}`.", "application/json", _OBJECT, 400),
    openapi_extra=_parameters(**_FILE, recursive="`true` for all below.", pattern="Only names that match."),
    summary="List a directory",
)
async def list_(engine: EngineOf, name: SpriteName) -> Response:
    """What a directory holds, or for a file the file itself."""
    return _Answer(engine, name, "/fs/list")


@router.delete(
    "/fs/delete",
    responses=_answers("What was deleted, as `{deleted, count}`.", "application/json", _OBJECT, 400),
    openapi_extra=_parameters(
        **_FILE, recursive="`true` for a directory with all in it.", asRoot="`true`: as root."
    ),
    summary="Delete a file or directory",
)
async def delete(engine: EngineOf, name: SpriteName) -> Response:
    """The parameters may be in a JSON body instead."""
    return _Answer(engine, name, "/fs/delete")


_MOVE = {
    "source": "The file or directory.",
    "dest": "Its new name.",
    "workingDir": "What relative paths start from.",
}
_RIGHTS = {"path": "The file or directory.", "workingDir": "What a relative path starts from."}
_TREE = {"recursive": "`true` for all in it.", "asRoot": "`true`: as root."}


@router.post(
    "/fs/rename",
    responses=_answers("The names, as `{source, dest}`.", "application/json", _OBJECT, 400, 403, 409),
    openapi_extra=_body(**_MOVE, asRoot="`true`: as root."),
    summary="Rename a file or directory",
)
async def rename(engine: EngineOf, name: SpriteName) -> Response:
    """What is at the new name is replaced. Works across file systems, such as `/tmp`, too."""
    return _Answer(engine, name, "/fs/rename")


@router.post(
    "/fs/copy",
    responses=_answers(
        "What was copied, as `{copied, count, totalBytes}`.", "application/json", _OBJECT, 400, 403, 507
    ),
    openapi_extra=_body(**_MOVE, **_TREE, preserveAttrs="`true`: with times, owner and attributes."),
    summary="Copy a file or directory",
)
async def copy(engine: EngineOf, name: SpriteName) -> Response:
    """A directory is copied into one that is there, or made. Refused while the host is short of space."""
    await engine.check_growth("copy files")
    return _Answer(engine, name, "/fs/copy")


@router.post(
    "/fs/chmod",
    responses=_answers("What was changed, as `{affected, count}`.", "application/json", _OBJECT, 400, 403),
    openapi_extra=_body(**_RIGHTS, **_TREE, mode="In octal, such as `0755`."),
    summary="Change a mode",
)
async def chmod(engine: EngineOf, name: SpriteName) -> Response:
    """The mode of a file, or of all in a directory."""
    return _Answer(engine, name, "/fs/chmod")


@router.post(
    "/fs/chown",
    responses=_answers("What was changed, as `{affected, count}`.", "application/json", _OBJECT, 400, 403),
    openapi_extra=_body(
        **_RIGHTS, **_TREE, uid="A number or a user's name.", gid="A number or a group's name."
    ),
    summary="Change an owner",
)
async def chown(engine: EngineOf, name: SpriteName) -> Response:
    """The owner, the group, or both, of a file or of all in a directory."""
    return _Answer(engine, name, "/fs/chown")


class _Answer(Response):
    """A response that is the pilot's, for as long as it lasts holding the sprite awake.

    ``path`` is the pilot's path, made from what was matched and never from the URL as it
    came, in which an encoded slash could mean another endpoint.
    """

    def __init__(self, engine: Engine, name: str, path: str, *, gap: float = 0.0) -> None:
        super().__init__()
        self._gap = gap
        self._engine = engine
        self._name = name
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query: bytes = scope["query_string"]
        target = self._path.encode() + (b"?" + query if query else b"")
        async with self._engine.awake(self._name, f"{scope['method']} {self._path}") as awake:
            await forward(scope, receive, send, socket=awake.pilot_socket, target=target, gap=self._gap)
