"""Commands a second, one after the other and many at once.

The official client runs in this process, in as many threads as commands are under way; podman starts as many processes.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bench.figures import Row
from bench.peers import timed
from bench.setting import Setting

WIDTHS = (1, 10, 50)
COMMANDS = 50  # of each round


def measure(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    podman = setting.podman
    with setting.product() as product, product.sprite("parallel") as sprite:
        podman.start("parallel")

        def ours() -> None:
            if (code := sprite.run("true").returncode) != 0:
                raise RuntimeError(f"true ended with {code}")

        for width in WIDTHS:
            theirs: list[float] = []
            found: list[float] = []
            with ThreadPoolExecutor(width) as threads:
                _rate(threads, width, ours)  # the threads are there now, and what the client needs for them
                for _ in range(setting.some(6)):
                    theirs.append(_rate(threads, COMMANDS, lambda: podman.exec("parallel")))
                    found.append(_rate(threads, COMMANDS, ours))
            peer = Row(f"podman exec, {width} at once", theirs, "/s", more_is_better=True)
            rows += [peer, Row(f"exec, {width} at once", found, "/s", against=peer, more_is_better=True)]
        podman.remove("parallel")
    return rows


def _rate(threads: ThreadPoolExecutor, count: int, work: Callable[[], None]) -> float:
    return count / timed(lambda: list(threads.map(lambda _: work(), range(count)))) * 1000
