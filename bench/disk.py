"""What a sprite's disk gives, against the host's own file system below it.

fio in both, one right after the other, who is first in turns: the host's own, which is copied into the sprite with
its libraries. Where something is overwritten, both have written it once before.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import serving
from bench.figures import Row
from bench.setting import Product, Setting


@dataclass(frozen=True)
class Job:
    """``new``: into a file that does not exist. ``aim``: the least ratio to the host."""

    what: str
    options: str
    unit: str  # what is read from fio's result
    part: int  # of the rounds
    aim: float | None = None
    new: bool = False


# Without preallocation, as most programs write; a disk inside another could not pass it on.
SEQUENTIAL = "--rw=write --bs=1M --size=1G --ioengine=psync --fallocate=none --end_fsync=1"
RANDOM = (
    "--rw=randwrite --bs=4k --direct=1 --ioengine=libaio --size=512M --overwrite=1"
    " --runtime=3 --time_based --ramp_time=1"
)
JOBS = (
    Job("sequential write of 1 GiB over a file, synced", SEQUENTIAL, "MiB/s", 2, aim=0.7),
    Job("sequential write of 1 GiB into a new file, synced", SEQUENTIAL, "MiB/s", 2, aim=0.7, new=True),
    Job("4K random write, direct, queue depth 1", f"{RANDOM} --iodepth=1", "IOPS", 4, aim=0.45),
    Job("4K random write, direct, queue depth 32", f"{RANDOM} --iodepth=32", "IOPS", 4, aim=0.45),
)
FILE = "fio.data"
COMMON = f"--name=job --filename={FILE} --output-format=json --randrepeat=0"
INSIDE = "/home/sprite/fio"
# With what a file system does after that, such as discards.
REMOVE = f"rm -f {FILE} && sync && sleep 0.5"


def measure(setting: Setting) -> list[Row]:
    rows = []
    with setting.product() as product, product.sprite("disk") as sprite:
        program = _carry_fio(product, sprite)

        def inside(command: str) -> str:
            return serving.run(sprite, command)

        def on_host(command: str) -> str:
            words = ["sh", "-c", command]
            done = subprocess.run(words, cwd=setting.directory, check=True, capture_output=True, text=True)
            return done.stdout

        for job in JOBS:
            host: list[float] = []
            ours: list[float] = []
            sides = [(on_host, "fio", host), (inside, program, ours)]
            try:
                if not job.new:
                    for run, fio, _ in sides:
                        run(f"{fio} {COMMON} {job.options}")
                for number in range(setting.some(job.part)):
                    for run, fio, found in sides[:: -1 if number % 2 else 1]:
                        if job.new:
                            run(REMOVE)
                        found.append(_result(run(f"{fio} {COMMON} {job.options}"), job.unit))
            finally:
                for run, *_ in sides:
                    run(REMOVE)
            floor = Row(f"host: {job.what}", host, job.unit, more_is_better=True)
            rows += [
                floor,
                Row(f"sprite: {job.what}", ours, job.unit, against=floor, aim=job.aim, more_is_better=True),
            ]
    return rows


def _carry_fio(product: Product, sprite: Any) -> str:
    """Put the host's fio into the sprite; return how it is called there."""
    program = shutil.which("fio")
    if program is None:
        raise RuntimeError("fio is not installed: apt-get install fio")
    words = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
    libraries = [Path(word) for word in words if word.startswith("/")]
    [loader] = [library.name for library in libraries if library.name.startswith("ld-")]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for file in (Path(program), *libraries):
            archive.add(file, file.name)
    with product.server.http() as http:
        answer = http.put(
            f"/v1/sprites/{sprite.name}/fs/write", params={"path": f"{INSIDE}.tar"}, content=packed.getvalue()
        )
        answer.raise_for_status()
    serving.run(sprite, f"mkdir {INSIDE} && tar -xf {INSIDE}.tar -C {INSIDE}")
    return f"{INSIDE}/{loader} --library-path {INSIDE} {INSIDE}/fio"


def _result(output: str, unit: str) -> float:
    wrote: dict[str, Any] = json.loads(output[output.index("{") :])["jobs"][0]["write"]
    return float(wrote["iops"]) if unit == "IOPS" else float(wrote["bw"]) / 1024
