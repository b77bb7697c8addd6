"""Inside a guest: start a server on each disk named, as after a power cut, and print what is there, as JSON.

Usage: inventory.py DEVICE…, one after the other: they may all be the same server's disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "tests"))

import serving  # noqa: E402

MOUNTED = Path("/srv/after")
HASHES = "cd /home/sprite && find . -type f ! -name '.*' -exec sha256sum {} +"


def look(device: str) -> dict[str, Any]:
    """Everything that can be said of the server's data on ``device``."""
    MOUNTED.mkdir(exist_ok=True)
    subprocess.run(["mount", device, MOUNTED], check=True)
    try:
        server = serving.Server(MOUNTED / "data")
        found: dict[str, Any] = {}
        try:
            server.start("--spares", "0")
            found = {"sprites": _sprites(server), "forks": _forks(server), "strays": _strays(server)}
        except Exception as error:
            found["error"] = repr(error)
        finally:
            found["log"] = server.log.read_text(errors="replace")
            try:
                server.down()
            except AssertionError as error:
                found["left"] = str(error)
        found["pool"] = _check_pool(server)
        return found
    finally:
        subprocess.run(["umount", MOUNTED], check=True)


def _sprites(server: serving.Server) -> dict[str, Any]:
    found = {}
    client = server.client(timeout=120)
    with server.http() as http:
        for each in http.get("/v1/sprites").json()["sprites"]:
            name = each["name"]
            known = http.get(f"/v1/sprites/{name}").json()
            checkpoints = [c["id"] for c in http.get(f"/v1/sprites/{name}/checkpoints").json()]
            found[name] = {
                "status": known["status"],
                "last_error": known.get("last_error"),
                "checkpoints": [c for c in checkpoints if c != "Current"],
                "files": _files(client.sprite(name), http),
            }
            if name == "diary":
                found[name]["diary"] = _diary(client.sprite(name))
    return found


def _forks(server: serving.Server) -> dict[str, Any]:
    """What is in one checkpoint of each sprite."""
    found = {}
    client = server.client(timeout=120)
    with server.http() as http:
        for each in http.get("/v1/sprites").json()["sprites"]:
            name = each["name"]
            known = [
                c["id"] for c in http.get(f"/v1/sprites/{name}/checkpoints").json() if c["id"] != "Current"
            ]
            if known:
                body = {"name": "look-back", "checkpoint": known[0]}
                http.post(f"/v1/sprites/{name}/fork", json=body).raise_for_status()
                found[f"{name} {known[0]}"] = _files(client.sprite("look-back"), http)
                http.delete("/v1/sprites/look-back").raise_for_status()
    return found


def _files(sprite: Any, http: httpx.Client) -> dict[str, str]:
    # Waking takes longer here than the client waits for a command's start, but not for this answer.
    http.get(f"/v1/sprites/{sprite.name}/fs/list?path=/").raise_for_status()
    lines = serving.run(sprite, HASHES).splitlines()
    return {line.split(maxsplit=1)[1].removeprefix("./"): line.split()[0] for line in lines}


def _diary(sprite: Any) -> int:
    """How many whole entries the diary has, from the first on; -1 if one is damaged."""
    text = serving.run(sprite, "cat diary 2>/dev/null || true")
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line != f"{number} {number * 7919}":
            torn = number == len(lines) - 1 and f"{number} {number * 7919}".startswith(line)
            return number if torn else -1
    return len(lines)


def _strays(server: serving.Server) -> list[str]:
    """Disks and checkpoints in the pool of sprites that the server does not know."""
    with server.http() as http:
        known = {each["id"] for each in http.get("/v1/sprites").json()["sprites"]}
    pool = server.data / "pool"
    return [
        str(path.relative_to(pool))
        for part in ("disks", "checkpoints")
        for path in (pool / part).iterdir()
        if path.name not in known
    ]


def _check_pool(server: serving.Server) -> str:
    """What ``btrfs check`` has against the pool; nothing if it is well."""
    command = ["btrfs", "check", "--readonly", str(server.data / "pool.img")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps(look(name)), flush=True)
