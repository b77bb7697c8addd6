"""What attackers and their neighbours have in common: programs that run inside, as the sprite's root."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import serving

PATIENCE_S = 60.0
LEAVING_S = 5.0

# Every attack begins so: with all the file descriptors it may have, and the C library at hand.
PRELUDE = """
import ctypes, errno, json, os, resource, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))

def call(name, *args):
    '''A function of the C library: 0 if it succeeds, else the name of its error.'''
    return errno.errorcode[ctypes.get_errno()] if getattr(libc, name)(*args) < 0 else 0

def full(*words):
    '''Say that all is taken, and keep it until the test has seen enough.'''
    print("full", *words, flush=True)
    sys.stdin.read()
"""

# What programs use of a kernel that they share with others; the answer shows that all of it worked.
NEIGHBOUR = """
import fcntl, pty, tempfile
class Attributes(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_long), ("most", ctypes.c_long), ("size", ctypes.c_long), ("now", ctypes.c_long * 5)]
def check(what, result):
    if result < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result
check("inotify", libc.inotify_init1(0))
check("message queue", libc.mq_open(b"/neighbour", os.O_RDWR | os.O_CREAT, 0o600, ctypes.byref(Attributes(0, 10, 8192))))
check("aio", libc.syscall(ctypes.c_long(206), 64, ctypes.byref(ctypes.c_ulong(0))))
check("timer", libc.timer_create(1, None, ctypes.byref(ctypes.c_long(0))))
check("eventfd", libc.eventfd(0, 0))
os.close(pty.openpty()[0])
files = [open("/dev/null") for _ in range(500)]
pid = os.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
here, there = socket.create_server(("127.0.0.1", 0)), socket.socket()
there.connect(here.getsockname())
other, _ = here.accept()
for _ in range(16):
    other.sendall(bytes(60000))
    left = 60000
    while left:
        left -= len(there.recv(left))
with tempfile.TemporaryFile() as file:
    file.write(bytes(1 << 20))
    os.fsync(file.fileno())
memory = bytearray(64 << 20)
print("all right", int(sys.argv[1]) * 3)
"""


def attack(sprite: Any, program: str, *arguments: str, user: str = "root") -> str:
    """Run a Python program to its end in a sprite; return what it printed. It must not fail."""
    done = sprite.run(*_command(program, user), *arguments, capture_output=True)
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return str(done.stdout.decode().strip())


def attack_json(sprite: Any, program: str, *arguments: str, user: str = "root") -> Any:
    """Run a Python program that prints JSON; return that."""
    return json.loads(attack(sprite, program, *arguments, user=user))


class Attack:
    """A program that runs in a sprite beside the test. ``words`` are the lines that it has said."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.words: list[str] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def killed(self) -> bool:
        """Whether it was made to end, and did not end by a mistake of its own."""
        return self._process.poll() == 128 + signal.SIGKILL

    @property
    def full(self) -> str | None:
        """What it took, when it can get no more."""
        return next(
            (line.removeprefix("full").strip() for line in self.words if line.startswith("full")), None
        )

    def end(self) -> None:
        """Let it end by itself, or leave it; its last words are known then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVING_S)
        self._process.kill()
        self._listener.join(LEAVING_S)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.words.append(line.decode(errors="replace").strip())


@contextlib.contextmanager
def running(
    server: serving.Server, name: str, program: str, *arguments: str, user: str = "root"
) -> Iterator[Attack]:
    """Run a program in the sprite ``name`` while the block runs; then it is to end by itself, or is left."""
    environment = {**os.environ, "SPRITES_API_URL": server.url, "SPRITE_TOKEN": server.token}
    command = [serving.SPRIGGAN, "exec", "-s", name, "--", *_command(program, user), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        attack = Attack(process)
        try:
            yield attack
        finally:
            attack.end()


@contextlib.contextmanager
def holding(server: serving.Server, name: str, program: str, *, user: str = "root") -> Iterator[str]:
    """Run a program that takes all it can get and calls ``full``; yields what it said with that."""
    with running(server, name, program, user=user) as attack:
        wait_for(lambda: attack.full is not None or attack.ended)
        assert attack.full is not None, attack.words
        yield attack.full


def wait_for(condition: Callable[[], bool]) -> None:
    """Raises ``AssertionError`` if it does not come true in time."""
    serving.until(condition, PATIENCE_S)


def works(server: serving.Server, sprite: Any) -> None:
    """A neighbour gets right answers: from a command that uses much, a terminal, and a file."""
    number = secrets.randbelow(10**6)
    assert attack(sprite, NEIGHBOUR, str(number), user="sprite") == f"all right {number * 3}"
    terminal = server.cli("exec", "-s", sprite.name, "--tty", "--", "tty")
    assert terminal.returncode == 0 and b"/dev/pts/" in terminal.stdout, terminal
    with server.http() as http:
        path, content = f"/v1/sprites/{sprite.name}/fs", secrets.token_bytes(4096)
        where = {"path": "/home/sprite/neighbour"}
        assert http.put(f"{path}/write", params=where, content=content).status_code == 200
        assert http.get(f"{path}/read", params=where).content == content


def create(server: serving.Server, name: str, **config: float) -> Any:
    """A sprite with limits of its own."""
    with server.http() as http:
        answer = http.post("/v1/sprites", json={"name": name, "config": config})
        assert answer.status_code == 201, answer.text
    return server.client().get_sprite(name)


def _command(program: str, user: str) -> list[str]:
    python = ["python3", "-c", PRELUDE + program]
    return python if user == "sprite" else ["sudo", *python]
