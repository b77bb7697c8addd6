"""A real browser, Chromium, over its debugging protocol."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

import serving

CHROMIUM = shutil.which("chromium")


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)

    def go(self, url: str) -> None:
        """Open ``url`` and wait until it is there."""
        self._call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, which may be a promise."""
        answer = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, script: str) -> None:
        """Wait until an expression is true, also in the page that comes after this one."""

        def holds() -> bool:
            try:
                return bool(self.run(script))
            except (RuntimeError, AssertionError):
                return False  # between two pages

        serving.until(holds, what=script)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self._connection.recv(timeout=60))).get("id") != number:
            pass
        if "error" in message:
            raise RuntimeError(message["error"]["message"])
        result: dict[str, Any] = message["result"]
        return result


@contextmanager
def browser() -> Iterator[Page]:
    """A browser that knows nothing yet."""
    if CHROMIUM is None:
        pytest.skip("needs chromium, which is no package on Ubuntu (on Debian scripts/test installs it)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-proxy-server", "--no-first-run", "--remote-debugging-port=0"]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            port = int(line.split("127.0.0.1:")[1].split("/")[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as listed:
                [page] = [each for each in json.load(listed) if each["type"] == "page"]
            with connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
                yield Page(connection)
        finally:
            process.kill()
            process.wait()
