"""Runs scripts on Node with the official JavaScript client, ``@fly/sprites``."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import serving

PACKAGES = Path(os.environ.get("SPRIGGAN_NODE", "/var/cache/spriggan/node"))
NODE = PACKAGES / "node_modules" / ".bin" / "node"

_PREAMBLE = """
import { SpritesClient } from "@fly/sprites";
const [url, token, name, given] = process.argv.slice(1);
const client = new SpritesClient(token, { baseURL: url });
const sprite = client.sprite(name);
const args = JSON.parse(given);
const say = (value) => process.stdout.write(JSON.stringify(value) + "\\n");
const all = async (stream) => { const seen = []; for await (const each of stream) seen.push(each); return seen; };
const fails = async (work) => { try { await work; } catch (error) { return String(error.message); } return null; };
"""


def start(server: serving.Server, sprite: Any, script: str, **args: Any) -> subprocess.Popen[str]:
    """Start ``script``, an ES module that finds ``client``, ``sprite``, ``args`` and the helpers above."""
    if not NODE.exists():
        pytest.skip(f"needs node@24 and @fly/sprites in {PACKAGES} (scripts/test installs them)")
    command = [str(NODE), "--input-type=module", "-e", _PREAMBLE + script]
    command += [server.url, server.token, sprite.name, json.dumps(args)]
    return subprocess.Popen(
        command,
        cwd=PACKAGES,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server: serving.Server, sprite: Any, script: str, *, timeout: float = 120, **args: Any) -> list[Any]:
    """Run a script to its end; return what it said."""
    with start(server, sprite, script, **args) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, (process.returncode, out, err)
    return [json.loads(line) for line in out.splitlines()]
