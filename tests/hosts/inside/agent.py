"""Inside a guest: runs what the test outside asks for. Standard library only.

One JSON object a line in each direction over a virtio serial port. Requests run side by side, so
that one that hangs does not keep the test from looking why.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

PORT = Path("/dev/virtio-ports/control")


class Agent:
    """Answers requests until the machine goes down."""

    def __init__(self) -> None:
        self._port = PORT.open("r+b", buffering=0)
        self._writing = threading.Lock()

    def serve(self) -> None:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._say({"boot": boot})
        pending = b""
        while True:
            pending += self._port.read(65536) or b""
            *lines, pending = pending.split(b"\n")
            for line in lines:
                threading.Thread(target=self._run, args=(json.loads(line),)).start()

    def _run(self, request: dict[str, Any]) -> None:
        process = subprocess.Popen(
            ["sh", "-c", request["script"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=request["timeout"])
            code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, code = process.communicate()[0] + b"\n(it took too long)", -1
        self._say({"id": request["id"], "code": code, "output": output.decode(errors="replace")})

    def _say(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._writing:
            while data:
                data = data[self._port.write(data) or 0 :]


if __name__ == "__main__":
    Agent().serve()
