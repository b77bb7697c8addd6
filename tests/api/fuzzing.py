"""What all tests have in common that send what a generator thinks of: settings, and what must hold after it.

What is sent is the same in every run. ``SPRIGGAN_FUZZ_SEED`` and ``SPRIGGAN_FUZZ_TIMES`` make it something
else, and more of it.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, seed, settings

import serving

SEED = int(os.environ.get("SPRIGGAN_FUZZ_SEED", "20261125"))
TIMES = float(os.environ.get("SPRIGGAN_FUZZ_TIMES", "1"))
PATIENCE_S = 30  # longer than anything here may take; what does hangs

HOME = "/home/sprite"
# Paths that are there (see ``furnish``), that cannot be, and that lead elsewhere.
PATHS = [
    "/",
    HOME,
    f"{HOME}/file",
    f"{HOME}/full/inner",
    f"{HOME}/full",
    f"{HOME}/fifo",
    f"{HOME}/socket",
    f"{HOME}/circle",
    f"{HOME}/to-root",
    f"{HOME}/to-shadow",
    f"{HOME}/secret",
    f"{HOME}/\u00fc\u202e\U0001f300",
    "/etc/passwd",
    "/etc/shadow",
    "/dev/null",
    "/dev/zero",
    "/dev/tty",
    "/proc/self/fd/3",
    "/proc/1/mem",
    "/proc/1/environ",
    "/proc/kmsg",
    "/sys/kernel/notes",
    "/.sprite/api.sock",
    "/.sprite/checkpoints/v1/etc",
    "/..",
    "//",
    "a/../..",
    "..",
    "",
    "a\0b",
    "x" * 300,
    "/" + "a/" * 2000,
    "/tmp/" + "b" * 5000,
]
_FURNITURE = r"""
import os, socket
os.chdir("/home/sprite")
open("file", "w").write("0123456789")
os.makedirs("full")
open("full/inner", "w").write("inner")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
for name, target in (("circle", "circle"), ("to-root", "/"), ("to-shadow", "/etc/shadow")):
    os.symlink(target, name)
os.makedirs("secret")
os.chmod("secret", 0)
"""


def examples(number: int) -> Callable[[Any], Any]:
    """Settings of a test that is tried ``number`` times; those that fail are shrunk, and printed."""
    chosen = settings(
        max_examples=max(1, round(number * TIMES)),
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: seed(SEED)(chosen(test))


def furnish(server: serving.Server, sprite: Any) -> None:
    """Have files of every kind in a sprite's home, and no policies, whatever was done to it before."""
    path = f"/v1/sprites/{sprite.name}"
    with server.http() as http:
        assert http.post(f"{path}/policy/network", json={"rules": []}).status_code == 204
        for kind in ("privileges", "resources"):
            assert http.delete(f"{path}/policy/{kind}").status_code == 204
    again = f"cd {HOME} && chown sprite: . && chmod 755 . && rm -rf file full fifo socket circle to-* secret"
    done = sprite.run("sudo", "sh", "-c", again, cwd="/", capture_output=True)
    assert done.returncode == 0, done.stderr
    done = sprite.run("python3", "-c", _FURNITURE, capture_output=True)
    assert done.returncode == 0, done.stderr


def acceptable(answer: httpx.Response) -> None:
    """A refusal is the client's fault and says what is wrong; it is never a failure of ours."""
    asked = f"{answer.request.method} {answer.request.url!r}"
    assert answer.status_code < 500, (asked, answer.status_code, answer.text)
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        said = answer.json()
        assert said["error"] and said["code"] and isinstance(said["hint"], str), (asked, said)


@contextmanager
def nothing_is_left(server: serving.Server, sprite: Any) -> Iterator[None]:
    """After the block the server and the sprite serve as before, and hold no more than before."""
    serving.run(sprite, "true")
    with server.http() as http:
        _tidy(http, sprite.name, _sprites(http))
        before = _counts(server, http, sprite.name)
        there = _sprites(http)
        logs = [server.log, _directory(server, http, sprite.name) / "pilot.log"]
        written = [log.read_text() for log in logs]
        yield
        answer = http.post(f"/v1/sprites/{sprite.name}/exec?cmd=echo&cmd=on&dir=/")
        assert (answer.status_code, answer.content) == (200, b"\x01on\n\x03\x00"), answer.text
        _tidy(http, sprite.name, there)
        deadline = time.monotonic() + PATIENCE_S
        while left := _more(now := _counts(server, http, sprite.name), before):
            assert time.monotonic() < deadline, (left, before, now)
            time.sleep(0.2)
    # Also of what went wrong inside without reaching a client.
    for log, earlier in zip(logs, written, strict=True):
        said = log.read_text().removeprefix(earlier)
        assert "Traceback" not in said, (log, said)


def _directory(server: serving.Server, http: httpx.Client, name: str) -> Path:
    """Where the pilot of a sprite keeps what it has."""
    return Path(f"/run/spriggan/{server.instance}/{http.get(f'/v1/sprites/{name}').json()['id']}")


# Connections and threads that are kept for a while, and come and go by themselves.
_SLACK = {"the server's files": 4, "the pilot's files": 4}


def _more(now: dict[str, int], before: dict[str, int]) -> list[str]:
    return [what for what, count in now.items() if count > before[what] + _SLACK.get(what, 0)]


def _counts(server: serving.Server, http: httpx.Client, name: str) -> dict[str, int]:
    """What the server, the sprite's pilot and the sprite hold."""
    assert server._process is not None
    sessions = http.get(f"/v1/sprites/{name}/exec").json()["sessions"]
    pilot = serving.pilot(server, name)
    inside = http.post(f"/v1/sprites/{name}/exec?cmd=ls&cmd=/proc&dir=/").content.split()
    return {
        "sprites": len(_sprites(http)),
        "sessions": len(sessions),
        "the server's files": len(list(Path(f"/proc/{server._process.pid}/fd").iterdir())),
        "the pilot's files": _files(pilot),
        "processes of the sprite": sum(entry.strip(b"\x01").isdigit() for entry in inside),
    }


def _files(pid: int) -> int:
    """Open files; without the output of sessions, which is kept for a while."""
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            kept = "/spool/" in str(fd.readlink()) and stat.S_ISREG(fd.stat().st_mode)
        except OSError:
            continue
        count += not kept
    return count


def _sprites(http: httpx.Client) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page = http.get("/v1/sprites", params={"continuation_token": token} if token else {}).json()
        found += [sprite["name"] for sprite in page["sprites"]]
        token = page["next_continuation_token"]
        if not token:
            return found


def _tidy(http: httpx.Client, name: str, there: list[str]) -> None:
    """Take away what was made on purpose: sprites, services and sessions."""
    for extra in set(_sprites(http)) - set(there):
        assert http.delete(f"/v1/sprites/{extra}").status_code == 204
    services = http.get(f"/v1/sprites/{name}/services").json()
    for service in services:  # first, that none needs another
        alone = service | {"needs": []}
        http.put(f"/v1/sprites/{name}/services/{service['name']}?duration=0", json=alone)
    for service in services:
        path = f"/v1/sprites/{name}/services/{service['name']}"
        assert http.delete(path, params={"timeout": "0"}).status_code == 204
    for session in http.get(f"/v1/sprites/{name}/exec").json()["sessions"]:
        http.post(f"/v1/sprites/{name}/exec/{session['id']}/kill?signal=KILL")
