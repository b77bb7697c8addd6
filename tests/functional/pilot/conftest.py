"""A pilot on a stand-in for the container, for all tests in this folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pilot_client import Pilot


@pytest.fixture(scope="module")
def pilot() -> Iterator[Pilot]:
    """One pilot per module. All that it started ends with it: it is init of a pid namespace's init."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare of util-linux")
    directory = Path(tempfile.mkdtemp(prefix="spriggan-pilot-"))
    directory.chmod(0o711)  # the root of the stand-in's namespace must get to its mount point
    double = Path(__file__).with_name("pilot_double.py")
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, double, directory],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 30
        while not (directory / "port").exists():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield Pilot(directory, int((directory / "port").read_text()), process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def http(pilot: Pilot) -> Iterator[httpx.Client]:
    """A plain HTTP client of the pilot's socket."""
    transport = httpx.HTTPTransport(uds=str(pilot.socket))
    with httpx.Client(transport=transport, base_url="http://pilot", timeout=30) as client:
        yield client
