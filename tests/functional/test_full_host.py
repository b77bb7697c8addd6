"""Disks are thin: what happens when all together want more than the host has."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import serving

MIB = 1 << 20
SPACE = 6 << 30
BALLAST = 1536 * MIB
# More than fits beside the ballast, less than fits without it.
WRITTEN = 4096 * MIB


@pytest.fixture
def small_host() -> Iterator[Path]:
    """A file system of 6 GiB of its own, where the host's file system would be."""
    image = Path(tempfile.mkdtemp(prefix="spriggan-test-", dir="/var/tmp"))
    try:
        with (image / "host.img").open("wb") as file:
            file.truncate(SPACE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image / "host.img"], check=True)
        root = image / "root"
        root.mkdir()
        subprocess.run(["mount", "-o", "loop", image / "host.img", root], check=True)
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
    finally:
        shutil.rmtree(image)


def test_who_fills_the_host_stands_still_and_the_others_go_on(small_host: Path) -> None:
    with serving.server(small_host) as own:
        ballast = small_host / "ballast"
        subprocess.run(["fallocate", "-l", str(BALLAST), ballast], check=True)
        own.start("--reserve", "1024")
        client = own.client()
        # Three disks of 20 GB on 6 GiB.
        fills, reads, writes = (client.create_sprite(name) for name in ("fills", "reads", "writes"))
        tree = "mkdir tree && cd tree && for i in $(seq 300); do head -c 40000 /dev/urandom > $i; done"
        for sprite in (reads, writes):
            serving.run(sprite, f"{tree} && sha256sum * > ../sums && sync")

        filling = _start_filling(own, "fills")
        with own.http() as http:
            _until_it_stays_paused(http, "fills")

            refused = http.post("/v1/sprites/fills/exec", params={"cmd": "true"})
            assert refused.status_code == 507, refused.text
            assert "kept in reserve" in refused.json()["error"] + refused.json()["message"]
            assert refused.json()["hint"]
            for path, body in (("/v1/sprites", {"name": "new"}), ("/v1/sprites/reads/checkpoint", {})):
                assert http.post(path, json=body).status_code == 507

            # Small acknowledged writes of somebody else go on.
            for i in range(50):
                serving.run(writes, f"echo line {i} >> log && sync log")
            assert serving.run(writes, "wc -l < log") == "50"
            assert serving.run(reads, "cd tree && sha256sum --quiet -c ../sums && echo whole") == "whole"
            assert _phase(http, "fills") == "paused"

            ballast.unlink()
            assert filling.wait(180) == 0
            assert _phase(http, "fills") == "running"

        assert serving.run(fills, "stat -c %s big") == str(WRITTEN)
        for sprite in (reads, writes):
            assert serving.run(sprite, "cd tree && sha256sum --quiet -c ../sums && echo whole") == "whole"
            serving.run(sprite, "touch new && sync new")
        # The same from the disks, not from memory.
        for name in ("reads", "writes"):
            assert own.cli("stop", name).returncode == 0
        assert serving.run(writes, "wc -l < log") == "50"
        assert serving.run(reads, "cd tree && sha256sum --quiet -c ../sums && echo whole") == "whole"


def test_who_fills_the_own_disk_harms_nobody_else() -> None:
    with serving.server() as own:
        own.start()
        with own.http() as http:
            for name in ("small", "other"):
                answer = http.post("/v1/sprites", json={"name": name, "config": {"storage_gb": 1}})
                assert answer.status_code == 201, answer.text
        client = own.client()
        small, other = client.get_sprite("small"), client.get_sprite("other")
        serving.run(small, "echo kept > kept && sync kept")
        assert "No space left" in serving.run(small, "head -c 3G /dev/zero > big", check=False)
        assert serving.run(small, "cat kept; rm big; echo more > kept && sync kept; cat kept") == "kept\nmore"
        serving.run(other, "head -c 300M /dev/zero > big && sync big")
        assert serving.run(small, "grep ' / ' /proc/mounts | grep -cw rw") == "1"


def _start_filling(own: serving.Server, name: str) -> subprocess.Popen[bytes]:
    """Write ``WRITTEN`` bytes that do not compress, in a command of its own."""
    script = f"head -c {WRITTEN} /dev/urandom > big && sync big"
    return own.start_cli("exec", "-s", name, "--", "sh", "-c", script)


def _phase(http: httpx.Client, name: str) -> str:
    answer: dict[str, Any] = http.get(f"/v1/sprites/{name}").json()
    return str(answer["phase"])


def _until_it_stays_paused(http: httpx.Client, name: str) -> None:
    """While much is on its way to the disk, what is left is not known well: it may go on for a moment."""
    deadline = time.monotonic() + 120
    looks = 0
    while looks < 25:
        looks = looks + 1 if _phase(http, name) == "paused" else 0
        assert time.monotonic() < deadline, f"{name} is not paused, or not for long"
        time.sleep(0.2)
