"""A real server with a data directory of its own, for tests that drive it from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sprites import SpritesClient

from spriggan.linux import cgroup, loop

IMAGE_CACHE = Path(os.environ.get("SPRIGGAN_IMAGE_CACHE", "/var/cache/spriggan")) / "images"
SPRIGGAN = str(Path(sys.executable).parent / "spriggan")


class Server:
    """One data directory and the server process on it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = _free_port()
        self.log = data / "server.log"
        self.spares = 0  # boxes that the server keeps ready for creates
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.data / "token").read_text().strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def instance(self) -> str:
        return str(json.loads((self.data / "instance.json").read_text())["id"])

    def start(self, *options: str, **environment: str) -> None:
        """Start the server and wait until it is ready."""
        command = [
            SPRIGGAN,
            "serve",
            "--data",
            str(self.data),
            "--listen",
            f"127.0.0.1:{self.port}",
            *options,
        ]
        self.spares = int(options[options.index("--spares") + 1]) if "--spares" in options else 1
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while b"is ready" not in self.log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the server does not start: {self.log.read_text()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0

    def wait_killed(self) -> None:
        """Wait until the server has killed itself at a fault point."""
        assert self._process is not None
        assert self._process.wait(30) == -signal.SIGKILL

    def client(self, **arguments: Any) -> SpritesClient:
        return SpritesClient(self.token, base_url=self.url, **arguments)

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)

    def cli(
        self, *arguments: str | bytes, input: bytes | None = None, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [SPRIGGAN, *arguments],
            input=input,
            capture_output=True,
            env=self._cli_environment() | environment,
            timeout=120,
            check=False,
        )

    def start_cli(self, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
        """A command of the CLI that goes on beside the test."""
        streams = {"stdin": subprocess.DEVNULL} | streams
        return subprocess.Popen([SPRIGGAN, *arguments], env=self._cli_environment(), **streams)

    def _cli_environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SPRITE")}
        return environment | {"SPRITES_API_URL": self.url, "SPRITE_TOKEN": self.token}

    def down(self) -> None:
        """Take everything down and require that nothing is left."""
        instance = self.instance if (self.data / "instance.json").exists() else None
        done = subprocess.run(
            [SPRIGGAN, "down", "--data", str(self.data)],
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,  # a terminal's Ctrl-C is for whoever called, not for this
        )
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + 10  # init needs a moment to reap what was killed
        while (left := leftovers(instance, self.data) if instance else []) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert done.returncode == 0, done.stderr
        assert not left, left


def until(condition: Callable[[], Any], timeout: float = 30, *, what: str = "it to happen") -> Any:
    """Wait for something to be true, and return it."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
        time.sleep(0.01)
    return found


def run(sprite: Any, script: str, *, check: bool = True) -> str:
    """Run a shell script in a sprite with the official client; return what it printed."""
    done = sprite.run("sh", "-c", script, capture_output=True)
    if check:
        assert done.returncode == 0, (script, done.returncode, done.stdout, done.stderr)
    return str((done.stdout + (b"" if check else done.stderr)).decode().strip())


def run_directory(server: Server, name: str) -> Path:
    """Where a sprite's box keeps what it has while it runs."""
    with server.http() as http:
        identity = http.get(f"/v1/sprites/{name}").json()["id"]
    return Path(f"/run/spriggan/{server.instance}/{identity}")


def pilot(server: Server, name: str) -> int:
    """The pid of a sprite's pilot."""
    return int((run_directory(server, name) / "pilot").read_text().split()[0])


def finished(stream: Any) -> list[str]:
    """Read a checkpoint or restore stream; it must not report an error."""
    messages = list(stream)
    errors = [m.error for m in messages if m.type == "error"]
    assert not errors, errors
    return [str(m.data) for m in messages]


@contextmanager
def server(where: Path = Path("/var/tmp")) -> Iterator[Server]:
    """A data directory in ``where``, with the default image; what was started on it is gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not (IMAGE_CACHE / "refs" / "sprites.json").exists():
        pytest.skip(f"needs the default image in {IMAGE_CACHE} (spriggan image build)")
    data = Path(tempfile.mkdtemp(prefix="spriggan-test-", dir=where))
    try:
        link_images(data)
        found = Server(data)
        try:
            yield found
        finally:
            found.down()
    finally:
        shutil.rmtree(data, ignore_errors=True)


def link_images(data: Path) -> None:
    """Show the cached images in a data directory."""
    shutil.copytree(
        IMAGE_CACHE, data / "images", copy_function=_link, ignore=shutil.ignore_patterns("mounts*", "build*")
    )


def leftovers(instance: str, data: Path) -> list[str]:
    """Everything in the kernel that carries the instance's name or lies on its files."""
    left = [
        f"mount {line.strip()}" for line in Path("/proc/mounts").read_text().splitlines() if str(data) in line
    ]
    files = {loop.backing_id(path) for path in data.rglob("*.img")}
    left += [f"loop device {device.path}" for device in loop.attached() if device.backing in files]
    for root in cgroup.hierarchies().roots():
        left += [f"cgroup {path}" for path in root.glob(f"spriggan-{instance}*")]
    left += [f"link {path.name}" for path in Path("/sys/class/net").glob(f"sg{instance[:4]}*")]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    left += [line for line in tables.splitlines() if instance in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                where = "".join((entry / name).read_text(errors="replace") for name in ("cgroup", "cmdline"))
            except OSError:
                continue
            if f"spriggan-{instance}" in where or f"/run/spriggan/{instance}" in where:
                left.append(f"process {entry.name}: {where!r}")
    if Path(f"/run/spriggan/{instance}").exists():
        left.append(f"/run/spriggan/{instance}")
    return left


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        Path(target).symlink_to(source)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
