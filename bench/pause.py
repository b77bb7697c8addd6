"""How long a program that writes stands still while a checkpoint is made.

By its own clock; what counts is the longest time of each round between two of its writes. The peer is one ``fsync`` of as
much on the host. ``the same without a checkpoint`` is as long a time after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import serving
from bench import peers
from bench.figures import Row
from bench.setting import Setting

# Overwrites 4 KiB blocks of a small file for some seconds; prints when it stood still, and for how long.
WRITER = """
import os, sys, time
fd = os.open("/home/sprite/written", os.O_RDWR | os.O_CREAT)
block, gaps, number = os.urandom(4096), [], 0
last = time.monotonic()
while not os.path.exists("/home/sprite/stop"):
    for _ in range(64):
        os.pwrite(fd, block, number % 2048 * 4096)
        number += 1
        now = time.monotonic()
        if now - last > 0.0005:
            gaps.append((last, now))
        last = now
for start, end in gaps:
    print(start, end)
"""
NEIGHBOUR = """
import os
fd = os.open("/home/sprite/neighbour", os.O_RDWR | os.O_CREAT)
number = 0
while not os.path.exists("/home/sprite/stop"):
    os.pwrite(fd, os.urandom(4096), number % 256 * 4096)
    os.fsync(fd)
    number += 1
"""
SETTLE_S = 0.3  # for the writer to be under way, before and after


def measure(setting: Setting) -> list[Row]:
    rows: list[Row] = []
    with setting.product() as product, product.sprite("pause") as sprite, product.sprite("other") as other:
        for size, rounds in ((64, setting.rounds), (1024, setting.some(3))):
            fsyncs: list[float] = []
            floor = Row(f"one fsync of {size} MiB on the host", fsyncs)
            rows.append(floor)
            for where in ("alone", "beside one that fsyncs all the time"):
                with ExitStack() as stack:
                    if where != "alone":
                        stack.enter_context(running(other, NEIGHBOUR))
                    still: list[float] = []
                    usual: list[float] = []
                    for _ in range(rounds):
                        if where == "alone":
                            fsyncs.append(peers.fsync(setting.directory, size << 20))
                        pause, without = _round(sprite, size)
                        still.append(pause)
                        usual.append(without)
                what = f"{size} MiB dirty, {where}"
                longest = f"longest pause during a checkpoint, {what}"
                rows.append(Row(longest, still, against=floor, aim=1, quantile=99))
                rows.append(Row(f"the same without a checkpoint, {what}", usual, against=floor, quantile=99))
    return rows


def _round(sprite: Any, size: int) -> tuple[float, float]:
    """The writer's longest pause in ms during a checkpoint, and in as long a time before it."""
    serving.run(sprite, f"head -c {size << 20} /dev/urandom > dirty")
    with running(sprite, WRITER) as output:
        time.sleep(SETTLE_S)
        start = time.monotonic()
        serving.finished(sprite.create_checkpoint(""))
        end = time.monotonic()
        time.sleep(max(SETTLE_S, end - start))
    gaps = [tuple(map(float, line.split())) for line in output[0].splitlines()]
    return _longest(gaps, start, end), _longest(gaps, end, 2 * end - start)


def _longest(gaps: list[tuple[float, ...]], start: float, end: float) -> float:
    return max((stop - begin for begin, stop in gaps if begin < end and stop > start), default=0.0) * 1000


@contextmanager
def running(sprite: Any, program: str) -> Iterator[list[str]]:
    """Run a program in the sprite for as long as the block lasts; its output is in the list afterwards."""
    output: list[str] = []

    def work() -> None:
        done = sprite.run("python3", "-c", program, capture_output=True)
        output.append(done.stdout.decode())

    serving.run(sprite, "rm -f stop")
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield output
    finally:
        serving.run(sprite, "touch stop")
        thread.join()
        serving.run(sprite, "rm -f stop")
