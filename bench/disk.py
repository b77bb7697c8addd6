"""What a sprite's disk gives, against the host's own file system below it.

fio in both: the host's own, which is copied into the sprite with its libraries.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import serving
from bench.figures import Row
from bench.setting import Product, Setting

# name, fio's options, what is read from its result, the least ratio to the host.
JOBS = (
    (
        "sequential write of 1 GiB, synced",
        "--rw=write --bs=1M --size=1G --ioengine=psync --end_fsync=1",
        "MiB/s",
        0.7,
    ),
    ("4K random write, direct, queue depth 1", "--rw=randwrite --bs=4k --direct=1 --iodepth=1", "IOPS", 0.45),
    (
        "4K random write, direct, queue depth 32",
        "--rw=randwrite --bs=4k --direct=1 --iodepth=32",
        "IOPS",
        0.45,
    ),
)
# Laid out before, so that both overwrite what is there.
RANDOM = "--ioengine=libaio --size=512M --overwrite=1 --runtime=3 --time_based --ramp_time=1"
COMMON = "--name=job --filename=fio.data --output-format=json --randrepeat=0"
INSIDE = "/home/sprite/fio"


def measure(setting: Setting) -> list[Row]:
    rows = []
    data = setting.directory / "fio.data"
    with setting.product() as product, product.sprite("disk") as sprite:
        program = _carry_fio(product, sprite)
        for what, options, unit, aim in JOBS:
            if unit == "IOPS":
                options = f"{options} {RANDOM}"
            host: list[float] = []
            inside: list[float] = []
            try:
                for _ in range(setting.some(6)):
                    host.append(_result(_on_host(setting, options), unit))
                    inside.append(_result(serving.run(sprite, f"{program} {COMMON} {options}"), unit))
            finally:
                data.unlink(missing_ok=True)
            serving.run(sprite, "rm -f fio.data")
            floor = Row(f"host: {what}", host, unit, more_is_better=True)
            rows += [floor, Row(f"sprite: {what}", inside, unit, against=floor, aim=aim, more_is_better=True)]
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


def _on_host(setting: Setting, options: str) -> str:
    command = ["fio", *COMMON.split(), *options.split()]
    return subprocess.run(command, cwd=setting.directory, check=True, capture_output=True, text=True).stdout


def _result(output: str, unit: str) -> float:
    wrote: dict[str, Any] = json.loads(output[output.index("{") :])["jobs"][0]["write"]
    return float(wrote["iops"]) if unit == "IOPS" else float(wrote["bw"]) / 1024
