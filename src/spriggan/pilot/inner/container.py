"""The inner container: what the user calls the computer."""

from __future__ import annotations

import array
import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from spriggan import faults
from spriggan.linux import mapped, namespaces
from spriggan.linux import process as processes
from spriggan.linux.autofs import Automount
from spriggan.linux.cgroup import Group, hierarchies
from spriggan.linux.paths import read_in_root
from spriggan.pilot import accounts
from spriggan.pilot.accounts import Account
from spriggan.pilot.inner import belongings, oci, past, programs, root, starters
from spriggan.pilot.inner.identity import Identity, is_settled, mark, write_name
from spriggan.pilot.inner.kit import Kit
from spriggan.pilot.process import ExecError, Process
from spriggan.wire.spec import SpriteSpec

START_TIMEOUT_S = 30.0
BOUNCE_CHECK_S = 0.1
REAP_PATIENCE_S = 2.0


class Container:
    """One sprite's world, from its disk and layers up to its first process."""

    def __init__(self, spec: SpriteSpec, kit: Kit, *, staging: Path, userns: int, netns: int) -> None:
        self._spec = spec
        self._name = spec.sprite_id  # what the runtime calls the container
        self._staging = staging
        self._kit = kit
        self._runtime = kit.runtime
        self._init_file = Path(spec.run_dir) / "init"  # the server reads it, too
        self._userns = userns
        self._netns = netns
        self._counter = 0
        self._stopping = False
        self._starting = 0  # attempts to run a command that are under way
        self._spawned: set[int] = set()  # processes that somebody else waits for
        self._strays = False
        self.init_pid = 0
        self.privileges = dict(spec.policies.privileges)

    @property
    def running(self) -> bool:
        return self.init_pid != 0 and processes.is_running(self.init_pid)

    @property
    def quiet(self) -> bool:
        """Whether nobody inside could ask for anything: only init is there, or all stand still."""
        box = Group(f"{self._spec.cgroup}/box", hierarchies())
        return box.frozen() or not box.pids() - self._init_and_its_own()

    @property
    def own_disk(self) -> Path:
        """The sprite's disk as it is mounted for the pilot alone, with the ids that are on it."""
        return self._staging / root.OWN_DISK

    async def died(self, patience: float) -> None:
        """Wait until the container has ended by itself, and nobody has touched it for ``patience`` seconds after.

        A restore that comes upon one that has just ended starts the next, as if it had not.
        """
        while True:
            pid = self.init_pid
            if pid:
                await processes.ended(pid)
                if self._ended_by_itself(pid):
                    await asyncio.sleep(patience)
                    if self._ended_by_itself(pid):
                        return
            await asyncio.sleep(BOUNCE_CHECK_S)  # it is being stopped and started

    def _ended_by_itself(self, pid: int) -> bool:
        return pid == self.init_pid and not self._stopping

    def start(self) -> None:
        """Mount the root and run the container. Blocks. Raises ``OSError`` with the cause."""
        spec = self._spec
        assembled = root.assemble(
            self._staging,
            layers=spec.layers,
            disk_image=spec.disk,
            first_id=spec.first_id,
            userns=self._userns,
            identity=Identity(spec.sprite_id, spec.hostname),
        )
        faults.point("pilot:root")
        try:
            belongings.give(self._staging, spec.first_id, self._group_of_user())
            self._run(assembled)
            faults.point("pilot:container")
        except BaseException:
            self._delete()
            root.dismantle(self._staging)
            raise
        if assembled.lost_host_keys:
            self._make_host_keys()

    def adopt(self) -> None:
        """Take over the container that an earlier pilot started. Raises ``OSError`` if it is gone."""
        # Asked for it, the runtime would say the same, but takes longer than all else of a revival.
        init_pid = processes.written_down(self._init_file)
        if init_pid is None:
            raise OSError("the container is not running any more")
        self.init_pid = init_pid

    def introduce(self) -> None:
        """Give a container that was started as a spare its name; one that has a name keeps it. Blocks."""
        identity = Identity(self._spec.sprite_id, self._spec.hostname)
        if is_settled(self.own_disk, identity):
            return
        mapped.as_root(self._spec.first_id, lambda: write_name(self._staging / root.ROOT, identity.hostname))
        faults.point("pilot:named")
        namespaces.set_hostname(self.init_pid, identity.hostname)
        mark(self.own_disk, identity)

    def stop(self, grace: float) -> None:
        """End every process of the sprite and unmount its disk. Blocks.

        Processes get SIGTERM and ``grace`` seconds, then SIGKILL.
        """
        self._stopping = True
        if self.running:
            self._terminate(grace)
        self._delete()
        self._reap_init()
        self.init_pid = 0
        faults.point("pilot:ended")
        root.dismantle(self._staging)
        faults.point("pilot:dismantled")

    def complete(self, process: Process) -> Process:
        """Fill in the user's own variables, the directory to start in, and the shell there is."""
        account, rootfs = self._account(process), self._staging / root.ROOT
        user = self._spec.user
        shell = {"SHELL": user.shell} if user.shell else {}
        argv, program = process.argv, process.program
        if process.any_shell and user.shell and not programs.has(rootfs, argv[0]):
            argv, program = [user.shell, *argv[1:]], user.shell
        places = (user.directory, account.home)
        cwd = process.cwd or next((p for p in places if p and programs.is_directory(rootfs, p)), "/")
        environment = {**account.environment, **shell, **process.env}
        return dataclasses.replace(process, argv=argv, program=program, env=environment, cwd=cwd)

    async def spawn(self, process: Process, stdin: int, stdout: int, stderr: int) -> int:
        """Start ``process`` in the container with these descriptors; return its pid on the host.

        It is a child of the pilot: ``processes.wait`` gives its exit code.
        """
        return await self._exec(process, stdin, stdout, stderr)

    async def spawn_tty(self, process: Process, rows: int, cols: int) -> tuple[int, int]:
        """Start ``process`` on a new terminal of the container; return (pid, master descriptor)."""
        with tempfile.TemporaryDirectory(prefix="tty-", dir=self._spec.run_dir) as directory:
            path = f"{directory}/s"
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
                listener.bind(path)
                listener.listen(1)
                listener.setblocking(False)
                receiving = asyncio.create_task(_receive_terminal(listener, rows, cols))
                try:
                    with self._null() as fd:
                        where = os.path.relpath(path, self._spec.run_dir)
                        pid = await self._exec(process, fd, fd, fd, console=where)
                    async with asyncio.timeout(START_TIMEOUT_S):
                        master = await receiving
                finally:
                    receiving.cancel()
        return pid, master

    async def _exec(
        self,
        process: Process,
        stdin: int,
        stdout: int,
        stderr: int,
        console: str | None = None,
    ) -> int:
        if not self.running:
            raise ExecError("the sprite is not running", 1)
        self._counter += 1
        self._starting += 1
        try:
            pid = await self._run_exec(process, stdin, stdout, stderr, console)
            self._spawned.add(pid)
            return pid
        except ExecError:
            self._strays = True
            raise
        finally:
            self._starting -= 1
            if self._strays and not self._starting:
                self._reap_strays()

    async def _run_exec(
        self,
        process: Process,
        stdin: int,
        stdout: int,
        stderr: int,
        console: str | None,
    ) -> int:
        # The runtime's command line can be read inside while it starts the command there. So it is
        # started in the runtime directory, and everything is named from there on.
        run_dir = self._spec.run_dir
        with _files(f"{run_dir}/exec-{self._counter}") as (pid_file, log, description):
            description.write_text(json.dumps(self._process_json(process, terminal=console is not None)))
            command = [
                "--root",
                os.path.relpath(self._spec.containers_dir, run_dir),
                "--log",
                log.name,
                "exec",
                "--detach",
                "--pid-file",
                pid_file.name,
                "--process",
                description.name,
                *(["--console-socket", console] if console else []),
                self._name,
            ]
            child = self._runtime.start(command, cwd=run_dir, stdin=stdin, stdout=stdout, stderr=stderr)
            child.returncode = await processes.wait(child.pid)
            if child.returncode != 0:
                raise _exec_error(process, log, child.returncode)
            return int(pid_file.read_text())

    def _process_json(self, process: Process, *, terminal: bool) -> dict[str, Any]:
        account = self._account(process)
        return {
            "terminal": terminal,
            "user": {"uid": account.uid, "gid": account.gid, "additionalGids": account.groups},
            "args": self._waiting(self._arguments(process)) if terminal else self._arguments(process),
            "env": [f"{name}={value}" for name, value in process.env.items()],
            "cwd": process.cwd,
            "capabilities": oci.capability_sets(oci.allowed_capabilities(self.privileges)),
            "noNewPrivileges": self.privileges.get("noNewPrivileges", False),
            "rlimits": oci.RLIMITS,
        }

    def _arguments(self, process: Process) -> list[str]:
        """The command line for the runtime, which takes the first argument for the program.

        One that is to be told another name gets it from the sprite's bash; without that, its own.
        """
        if process.program in ("", process.argv[0]):
            return process.argv
        name, *rest = process.argv
        if programs.is_program(self._staging / root.ROOT, "/bin/bash"):
            return starters.renaming(name, process.program, rest)
        return [process.program, *rest]

    def _waiting(self, arguments: list[str]) -> list[str]:
        """``arguments`` for a terminal, which has no size when the runtime starts the program."""
        if not programs.is_program(self._staging / root.ROOT, "/bin/sh"):
            return arguments
        return starters.waiting(arguments)

    def publish_policy(self, rules: list[dict[str, Any]]) -> None:
        """Let the sprite read what its network policy is."""
        belongings.publish_policy(self._staging, rules)

    def renew_checkpoints(self) -> Automount | None:
        """What fills the directory of checkpoints, for which an earlier pilot answered."""
        return belongings.take_over(self._staging, self._kit.autofs)

    def shown_checkpoints(self) -> list[str]:
        """The checkpoints that are mounted inside."""
        return past.shown(self.init_pid)

    def show_checkpoint(self, name: str) -> None:
        """Mount a checkpoint read-only inside. Blocks. Raises ``OSError``; then nothing is mounted."""
        directory = self._staging / belongings.CHECKPOINTS / name
        directory.mkdir(exist_ok=True)
        try:
            past.show(
                self._staging,
                Path(self._spec.checkpoints_dir) / name / Path(self._spec.disk).name,
                name,
                layers=len(self._spec.layers),
                first_id=self._spec.first_id,
                userns=self._userns,
                init_pid=self.init_pid,
            )
        except BaseException:
            directory.rmdir()
            raise

    def drop_checkpoint(self, name: str, *, unused: bool) -> bool:
        """Unmount a checkpoint, with ``unused`` only if nobody looked at it lately; whether it is gone. Blocks."""
        gone = past.drop(name, self.init_pid, unused=unused)
        if gone:
            (self._staging / belongings.CHECKPOINTS / name).rmdir()
        return gone

    def _group_of_user(self) -> int:
        """The group of the sprite's user, by its own /etc/passwd; root's if there is no such user."""
        account = accounts.find(self._spec.user.name, self._text("/etc/passwd"), self._text("/etc/group"))
        return account.gid if account else 0

    def _account(self, process: Process) -> Account:
        """Who runs ``process``, by the sprite's own files."""
        user = process.user or self._spec.user.name
        account = accounts.find(user, self._text("/etc/passwd"), self._text("/etc/group"))
        if account is None:
            raise ExecError(f"there is no user {user!r} in the sprite's /etc/passwd", 126)
        return account

    def _text(self, path: str) -> str:
        try:
            return read_in_root(self._staging / root.ROOT, path)
        except OSError:
            return ""

    def _run(self, assembled: root.Assembled) -> None:
        spec = self._spec
        bundle = self._staging / "bundle"
        bundle.mkdir(exist_ok=True)
        own_tail = programs.has(assembled.root, "tail")
        config = oci.configuration(
            spec,
            assembled,
            self.privileges,
            staging=self._staging,
            shown=self._kit.shown if own_tail else self._kit.shown_with_keepalive,
            init=oci.INIT if own_tail else oci.INIT_OF_OURS,
            userns=f"/proc/{os.getpid()}/fd/{self._userns}",
            netns=f"/proc/{os.getpid()}/fd/{self._netns}",
        )
        (bundle / "config.json").write_text(json.dumps(config))
        with _files(f"{spec.run_dir}/run") as (pid_file, log, _):
            command = [*self._options(str(log)), "run", "--detach", "--pid-file", str(pid_file)]
            command += ["--bundle", str(bundle), self._name]
            with self._null() as fd:
                # Without the mask the sprite's devices would be root's alone.
                done = self._runtime.run(command, stdin=fd, stdout=fd, stderr=fd, umask=0)
            if done.returncode != 0:
                raise OSError(f"{self._runtime.name} could not start the container: {_last_line(log)}")
            self.init_pid = int(pid_file.read_text())
        processes.write_down(self._init_file, self.init_pid)
        self._stopping = False

    def _reap_init(self) -> None:
        """Take init's exit status. The kernel keeps it until every process of the namespace is reaped."""
        deadline = time.monotonic() + REAP_PATIENCE_S
        with contextlib.suppress(ChildProcessError):  # a container taken over is nobody's child here
            while self.init_pid and time.monotonic() < deadline:
                if os.waitpid(self.init_pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.005)

    def _reap_strays(self) -> None:
        """Reap what failed attempts to run a command left: processes that the runtime made and forgot.

        Runs in the event loop while no attempt is under way, so that whatever else is a child inside
        the container is known.
        """
        self._spawned = {pid for pid in self._spawned if processes.start_time(pid) is not None}
        for pid in processes.ended_children():
            if pid not in self._spawned and pid != self.init_pid and processes.in_inner_namespace(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        self._strays = False

    def _make_host_keys(self) -> None:
        command = [*self._options("/dev/null"), "exec", "--user", "0:0", self._name, "sh", "-c"]
        command.append("command -v ssh-keygen >/dev/null && ssh-keygen -A || true")
        with self._null() as fd:
            self._runtime.run(command, stdin=fd, stdout=fd, stderr=fd)

    def _terminate(self, grace: float) -> None:
        """SIGTERM to all but init, wait until only init's own are left, then kill init."""
        deadline = time.monotonic() + grace
        for pid in self._others():
            processes.kill_quietly(pid, signal.SIGTERM)
        while self._others() and time.monotonic() < deadline:
            time.sleep(0.01)
        processes.kill_quietly(self.init_pid)  # the kernel kills the rest of the pid namespace

    def _others(self) -> set[int]:
        try:
            init = self._init_and_its_own()
            namespace = Path(f"/proc/{self.init_pid}/ns/pid").readlink()
        except OSError:
            return set()
        found = set()
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{entry.name}/ns/pid").readlink() == namespace:
                        found.add(int(entry.name))
        return found - init

    def _init_and_its_own(self) -> set[int]:
        """Init, and the process that keeps it alive. Raises ``OSError`` if it has ended."""
        children = Path(f"/proc/{self.init_pid}/task/{self.init_pid}/children").read_text().split()
        return {self.init_pid, *map(int, children[:1])}

    def _delete(self) -> None:
        state = Path(self._spec.containers_dir) / self._name
        if state.exists():
            command = [*self._options("/dev/null"), "delete", "--force", self._name]
            self._runtime.run(command, stdin=subprocess.DEVNULL, capture_output=True)
            shutil.rmtree(state, ignore_errors=True)

    @contextlib.contextmanager
    def _null(self) -> Iterator[int]:
        """Our own /dev/null: the runtime makes the container's user the owner of what it gets as
        standard streams, and with the host's that would be for everybody.
        """
        fd = os.open(self._kit.null, os.O_RDWR | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _options(self, log: str) -> list[str]:
        return ["--root", self._spec.containers_dir, "--log", log]


@contextlib.contextmanager
def _files(base: str) -> Iterator[tuple[Path, Path, Path]]:
    """Names of a pid file, a log and a process description that are removed afterwards."""
    with ExitStack() as stack:
        paths = [Path(f"{base}.{kind}") for kind in ("pid", "log", "json")]
        for path in paths:
            stack.callback(path.unlink, missing_ok=True)
        yield paths[0], paths[1], paths[2]


def _exec_error(process: Process, log: Path, code: int) -> ExecError:
    reason = _last_line(log)
    lowered = reason.lower()
    name = process.program or process.argv[0]
    if "chdir" in lowered or "cwd" in lowered:
        return ExecError(f"cannot change to directory {process.cwd}: {reason}", 126)
    if "no such file" in lowered or "not found" in lowered:
        return ExecError(f"{name}: command not found", 127)
    if "permission denied" in lowered:
        return ExecError(f"{name}: permission denied", 126)
    return ExecError(f"cannot run {name}: {reason} (exit code {code})", 126)


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "no reason was given"
    return lines[-1] if lines else "no reason was given"


async def _receive_terminal(listener: socket.socket, rows: int, cols: int) -> int:
    """Take the terminal's master descriptor that the runtime sends, and give it its size."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    with connection:
        await processes.ready(connection.fileno())
        fds = array.array("i")
        _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_LEN(fds.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: fds.itemsize])
    if not fds:
        raise OSError("the container runtime sent no terminal")
    os.set_inheritable(fds[0], False)
    termios.tcsetwinsize(fds[0], (rows, cols))
    return fds[0]
