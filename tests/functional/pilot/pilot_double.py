"""The pilot's real apps on a stand-in for the container: commands are processes of this machine,
files those of a small root file system in namespaces of its own.

``python pilot_double.py DIRECTORY`` serves ``pilot.sock`` and ``inner.sock`` there, and on a TCP
port (written to ``port``) the first of them under the public paths. It is started inside a new pid
namespace, so nothing that it started outlives it. Commands that the stand-in knows by name:
``raise-oserror`` cannot be started for a reason that is not an ``ExecError``; ``late FILE COMMAND…`` is
started when there is that file.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from spriggan.linux import libc, namespaces, process
from spriggan.linux.mount import MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount
from spriggan.pilot import main
from spriggan.pilot.accounts import Account
from spriggan.pilot.app import Apps
from spriggan.pilot.inner.egress import Egress
from spriggan.pilot.process import ExecError, Process
from spriggan.wire.policy import NetworkPolicy
from spriggan.wire.spec import SpriteSpec, Uplink, User

FIRST_ID = 0x30000000
USER = 1001


class HostContainer:
    """Starts commands as children of this process, with sessions of their own as crun gives them."""

    def __init__(self, init_pid: int, own_disk: Path) -> None:
        self.init_pid = init_pid
        self.privileges: dict[str, Any] = {}
        self.own_disk = own_disk

    @property
    def running(self) -> bool:
        return self.init_pid != 0

    def start(self) -> None:
        raise OSError("the stand-in starts once")

    def stop(self, grace: float) -> None:
        self.init_pid = 0

    def publish_policy(self, rules: list[dict[str, Any]]) -> None:
        self.rules = rules

    def shown_checkpoints(self) -> list[str]:
        return []

    def show_checkpoint(self, name: str) -> None:
        raise OSError("the stand-in has no checkpoints")

    def drop_checkpoint(self, name: str, *, unused: bool) -> bool:
        return True

    def complete(self, process: Process) -> Process:
        own = {**Account("sprite", USER, USER, [], "/home/sprite").environment, "SHELL": "/bin/sh"}
        return replace(process, env={**own, **process.env}, cwd=process.cwd or "/home/sprite")

    async def spawn(self, process: Process, stdin: int, stdout: int, stderr: int) -> int:
        if process.argv[0] == "raise-oserror":
            raise OSError(24, "Too many open files")
        if process.argv[0] == "late":
            go, *argv = process.argv[1:]
            while not Path(go).exists():
                await asyncio.sleep(0.01)
            return await self.spawn(replace(process, argv=argv, program=""), stdin, stdout, stderr)
        try:
            child = subprocess.Popen(
                process.argv,
                executable=process.program or None,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=process.env,
                cwd=process.cwd if Path(process.cwd).is_dir() else "/",
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ExecError(f"{process.argv[0]}: command not found", 127) from error
        except PermissionError as error:
            raise ExecError(f"{process.argv[0]}: permission denied", 126) from error
        child.returncode = 0  # the pilot is who waits
        return child.pid

    async def spawn_tty(self, process: Process, rows: int, cols: int) -> tuple[int, int]:
        master, slave = os.openpty()
        termios.tcsetwinsize(master, (rows, cols))
        try:
            argv = ["setsid", "--ctty", "--", process.program or process.argv[0], *process.argv[1:]]
            child = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, env=process.env, cwd="/")
        finally:
            os.close(slave)
        child.returncode = 0
        return child.pid, master


def small_root(directory: Path) -> int:
    """Start a process whose user and mount namespaces hold a small root; return its pid."""
    ready_r, ready_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    up_r, up_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        namespaces.unshare(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS)
        os.write(ready_w, b"1")
        os.read(mapped_r, 1)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        _build(directory)
        os.write(up_w, b"1")
        while True:
            signal.pause()
    os.close(up_w)  # so that a child that fails is noticed
    os.read(ready_r, 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{pid}/{name}").write_text(f"0 {FIRST_ID} {namespaces.ID_COUNT}\n")
    os.write(mapped_w, b"1")
    assert os.read(up_r, 1) == b"1"
    for fd in (ready_r, ready_w, mapped_r, mapped_w, up_r):
        os.close(fd)
    return pid


def _build(root: Path) -> None:
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", options="mode=755")
    for name, mode in (("etc", 0o755), ("home/sprite", 0o700), ("tmp", 0o1777), ("private", 0o700)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    os.chown(root / "home/sprite", USER, USER)
    (root / "other").mkdir()
    mount("tmpfs", root / "other", "tmpfs", options=f"mode=755,uid={USER},gid={USER}")
    (root / "etc/passwd").write_text(
        f"root:x:0:0::/root:/bin/sh\nsprite:x:{USER}:{USER}::/home/sprite:/bin/sh\n"
    )
    (root / "etc/group").write_text(f"root:x:0:\nsprite:x:{USER}:\nteam:x:2000:sprite\n")
    (root / "etc/team").write_text("for the team")
    os.chown(root / "etc/team", 0, 2000)
    (root / "etc/team").chmod(0o640)
    (root / "etc/secret").write_text("root's")
    (root / "etc/secret").chmod(0o600)
    _build_oddities(root / "odd")
    os.chdir(root)
    libc.syscall("pivot_root", b".", b".", what="pivot_root")
    umount(".", MNT_DETACH)
    os.chdir("/")


def _build_oddities(odd: Path) -> None:
    """What a program inside may leave for whoever lists, reads and deletes."""
    for name in ("special", "bytes", "time", "links"):
        (odd / name).mkdir(parents=True)
    os.mkfifo(odd / "special/fifo", 0o666)
    socket.socket(socket.AF_UNIX).bind(str(odd / "special/socket"))
    Path(os.fsdecode(bytes(odd / "bytes") + b"/not-\xff-utf8")).touch()
    (odd / "time/far").touch()
    os.utime(odd / "time/far", (1 << 40, 1 << 40))
    (odd / "links/file").write_text("here")
    (odd / "links/to-file").symlink_to("file")
    (odd / "links/loop").symlink_to("loop")
    (odd / "links/nowhere").symlink_to("nothing")
    (odd / "links/to-odd").symlink_to("/odd")
    for directory, _, files in os.walk(odd):
        for name in (directory, *(f"{directory}/{file}" for file in files)):
            os.chown(name, USER, USER, follow_symlinks=False)
    os.chdir(odd)
    for _ in range(2500):  # deeper than Python recurses, and than a path can be long
        Path("deep").mkdir(0o755)
        os.chown("deep", USER, USER)
        os.chdir("deep")


class PublicPaths:
    """The pilot's app under the paths of the public API."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = re.sub(r"^/v1/sprites/[^/]+", "", scope["path"])
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, send)


async def serve(directory: Path, init_pid: int) -> None:
    spec = SpriteSpec(
        sprite_id="sprite-1",
        name="one",
        hostname="one",
        run_dir=str(directory),
        containers_dir=str(directory / "containers"),
        spool_dir=str(directory / "spool"),
        disk="",
        layers=[],
        first_id=FIRST_ID,
        cgroup="/none",
        uplink=Uplink("uplink0", "", "", "", "", 1500),
        user=User("sprite", "/bin/sh"),
        server_socket=str(directory / "server.sock"),
        capability="the-capability",
    )
    disk = directory / "disk"
    for name in ("sprite", "logs"):
        (disk / name).mkdir(parents=True)
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    apps = Apps(HostContainer(init_pid, disk), spec, Egress(NetworkPolicy([])), netns)
    await apps.begin()
    tcp = socket.socket()
    tcp.bind(("127.0.0.1", 0))
    tcp.listen(100)
    port = tcp.getsockname()[1]
    await main._listen_on(main._listen(directory / "inner.sock", 0o666), apps.inner)
    await main._listen_on(tcp.detach(), PublicPaths(apps.server))
    server = main._listen(directory / "pilot.sock", 0o600)
    await main._listen_on(server, apps.server, http=main._WithTransport)
    (directory / "port.new").write_text(str(port))
    (directory / "port.new").rename(directory / "port")
    await asyncio.Event().wait()


def run(directory: Path) -> None:
    process.set_child_subreaper()
    root = directory / "root"
    root.mkdir()
    init_pid = small_root(root)
    asyncio.run(serve(directory, init_pid))


if __name__ == "__main__":
    run(Path(sys.argv[1]))
