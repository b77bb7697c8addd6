"""Run the programs that a build is made of, so that none of them outlives it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from spriggan.errors import Broken, MissingCapability

# Killed with the thread that started it: a build that is shot leaves no apt running.
_TIED = ("setpriv", "--pdeathsig", "KILL", "--")
# The same for a whole tree of processes: when the first process of a pid namespace ends, the
# kernel kills the rest, and with the last of them the mount namespace and its mounts are gone.
_ISOLATED = (*_TIED, "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--")

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL_LINES = 12


class Runner:
    """Runs programs with a plain environment; what they print goes to a log file."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        # Proxies given by the environment are the host's way out, as those of apt's configuration.
        proxies = {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
        self._environment = {
            "PATH": _PATH,
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            "PYTHONHASHSEED": "0",
            **proxies,
            **environment,
        }

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        what: str,
        isolated: bool = False,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Run a program to its end; ``what`` is being done, for the error."""
        prefix = _ISOLATED if isolated else _TIED
        with self.log.open("ab") as log:
            start = log.tell()
            process = self._start([*prefix, *argv], environment or {}, cwd, stdout=log)
            with _killed_on_error(process):
                process.wait()
        if process.returncode:
            raise self._failure(what, process.returncode, start)

    def output(
        self, argv: Sequence[str | Path], *, what: str, environment: dict[str, str] | None = None
    ) -> str:
        """Run a program and return what it printed."""
        start = self.log.stat().st_size if self.log.exists() else 0
        process = self._start([*_TIED, *argv], environment or {}, None, stdout=subprocess.PIPE)
        with _killed_on_error(process):
            text, _ = process.communicate()
        if process.returncode:
            raise self._failure(what, process.returncode, start)
        return text.decode(errors="replace")

    def _start(
        self,
        argv: Sequence[str | Path],
        environment: dict[str, str],
        cwd: Path | None,
        *,
        stdout: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        try:
            with self.log.open("ab") as log:
                return subprocess.Popen(
                    [os.fspath(argument) for argument in argv],
                    env={**self._environment, **environment},
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=log,
                    # Ctrl-C is for us: we stop the program, clean up and say so.
                    start_new_session=True,
                    umask=0o022,  # the modes of an image are not a matter of who builds it
                )
        except FileNotFoundError as error:
            raise MissingCapability(
                f"the program {error.filename} is not installed", hint="Run: spriggan setup"
            ) from error

    def _failure(self, what: str, code: int, start: int) -> Broken:
        with self.log.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").strip().splitlines()
        tail = "\n".join(lines[-_TAIL_LINES:])
        return Broken(
            f"{what} failed with exit code {code}:\n{tail}",
            hint=f"The whole output is in {self.log}",
        )


@contextmanager
def _killed_on_error(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        process.wait()
        raise
