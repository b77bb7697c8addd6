"""Commands, files and services as they are in JSON. They are here for the description: a sprite's pilot
reads and writes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Annotated[str, Field(pattern="^0?[0-7]{3,4}$", examples=["0644"])]
Path = Annotated[str, Field(min_length=1, max_length=4096)]
Id = int | Annotated[str, Field(min_length=1, max_length=256)]


class SessionReply(BaseModel):
    id: str = Field(description="Its pid, as the sprite's own processes see it.", examples=["1847"])
    command: str = Field(description="What runs in it now.")
    workdir: str
    created: datetime
    last_activity: datetime
    bytes_per_second: float
    is_active: bool = Field(description="Whether somebody is attached.")
    tty: bool


class SessionsReply(BaseModel):
    count: int
    sessions: list[SessionReply]


class KillBody(BaseModel):
    """What the query says where it is not given here."""

    signal: str | int | None = Field(default=None, description="`SIGTERM` if not given.", examples=["TERM"])
    timeout: float | str | None = Field(
        default=None, description="Seconds or a duration; then `SIGKILL`. `10s` if not given.", examples=[10]
    )


class KillEvent(BaseModel):
    """One line of a kill's stream."""

    type: Literal["signal", "timeout", "exited", "killed", "error", "complete"]
    message: str
    data: str = Field(description="The same as `message`: some clients show the one, some the other.")
    error: str | None = None
    signal: str | None = None
    pid: int | None = None
    exit_code: int | None = None


class EntryReply(BaseModel):
    """A file or directory."""

    name: str
    path: str
    type: Literal["file", "directory", "symlink"]
    size: int
    mode: str = Field(examples=["0644"])
    modTime: datetime
    isDir: bool


class ListReply(BaseModel):
    path: str
    entries: list[EntryReply]
    count: int


class WriteReply(BaseModel):
    path: str
    size: int
    mode: str


class DeleteBody(BaseModel):
    """Counts where the query names no path."""

    path: Path
    workingDir: str | None = None
    recursive: bool | None = None
    asRoot: bool | None = None


class DeleteReply(BaseModel):
    deleted: list[str]
    count: int


class RenameBody(BaseModel):
    source: Path = Field(description="The file or directory.")
    dest: Path = Field(description="Its new name.")
    workingDir: str | None = Field(default=None, description="What relative paths start from; `/`.")
    asRoot: bool | None = None


class RenameReply(BaseModel):
    source: str
    dest: str


class CopyBody(RenameBody):
    recursive: bool | None = Field(default=None, description="For a directory, with all in it.")
    preserveAttrs: bool | None = Field(default=None, description="With times, owner and attributes.")


class CopyReply(BaseModel):
    copied: list[RenameReply] = Field(description="The first 100,000 of them.")
    count: int
    totalBytes: int
    source: str
    dest: str


class ChmodBody(BaseModel):
    path: Path
    mode: Mode
    workingDir: str | None = None
    recursive: bool | None = None
    asRoot: bool | None = None


class ModeReply(BaseModel):
    path: str
    mode: str


class ChmodReply(ModeReply):
    affected: list[ModeReply] = Field(description="The first 100,000 of them.")
    count: int


class ChownBody(BaseModel):
    """At least one of `uid` and `gid` has to be there."""

    path: Path
    uid: Id | None = Field(default=None, description="A number or a user's name.", examples=["sprite"])
    gid: Id | None = Field(default=None, description="A number or a group's name.", examples=[1001])
    workingDir: str | None = None
    recursive: bool | None = None
    asRoot: bool | None = None


class OwnerReply(BaseModel):
    path: str
    uid: int
    gid: int


class ChownReply(OwnerReply):
    affected: list[OwnerReply] = Field(description="The first 100,000 of them.")
    count: int


class ServiceBody(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"cmd": "python3", "args": ["-m", "http.server", "8000"], "http_port": 8000}
        }
    )

    cmd: str = Field(description="The program, without its arguments.", min_length=1)
    args: list[str] | None = None
    env: dict[str, str] | None = None
    dir: str | None = Field(
        default=None, description="Working directory, absolute; the home directory if not given."
    )
    needs: list[str] | None = Field(default=None, description="Services that start before this one.")
    http_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="For one service of a sprite at most."
    )


class ServiceState(BaseModel):
    name: str
    status: Literal["stopped", "starting", "running", "stopping", "failed"]
    restart_count: int
    pid: int | None = Field(default=None, description="Of a process that runs now.")
    started_at: datetime | None = None
    error: str | None = None
    next_restart_at: datetime | None = None


class ServiceReply(BaseModel):
    """A service: its definition, and its state now."""

    name: str
    cmd: str
    args: list[str]
    env: dict[str, str]
    dir: str | None
    needs: list[str]
    http_port: int | None
    state: ServiceState


class ServiceSignalBody(BaseModel):
    name: str = Field(examples=["web"])
    signal: str | int = Field(examples=["HUP"])


class LogFiles(BaseModel):
    combined: str
    stdout: str
    stderr: str


class ServiceEvent(BaseModel):
    """One line of a service's stream."""

    type: Literal["stdout", "stderr", "exit", "error", "started", "stopping", "stopped", "complete"]
    data: str | None = None
    exit_code: int | None = None
    timestamp: int = Field(description="Milliseconds since 1970.")
    log_files: LogFiles | None = Field(default=None, description="Paths inside the sprite.")


ALL: tuple[type[BaseModel], ...] = (
    SessionsReply,
    KillBody,
    KillEvent,
    ListReply,
    WriteReply,
    DeleteBody,
    DeleteReply,
    RenameBody,
    RenameReply,
    CopyBody,
    CopyReply,
    ChmodBody,
    ChmodReply,
    ChownBody,
    ChownReply,
    ServiceBody,
    ServiceReply,
    ServiceSignalBody,
    ServiceEvent,
)
