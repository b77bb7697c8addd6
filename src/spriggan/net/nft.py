"""The nft program: it takes a script on its standard input and applies all of it or nothing."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from spriggan.errors import Broken, MissingCapability


def apply(script: str) -> None:
    """Apply ``script`` atomically."""
    result = _run(["-f", "-"], script)
    if result.returncode:
        raise Broken(
            f"nft refused the rules: {result.stderr.strip()}",
            hint="does the kernel have nf_tables with nat, masq and ct? `modprobe nft_masq`",
        )


def tables() -> set[tuple[str, str]]:
    """Family and name of every table in this network namespace."""
    return {(entry["family"], entry["name"]) for entry in listing("tables", kind="table")}


def listing(*what: str, kind: str = "") -> list[dict[str, Any]]:
    """``nft -j list …``: the objects, or those of one ``kind`` without their wrapping."""
    result = _run(["-j", "list", *what])
    if result.returncode:
        raise Broken(f"nft list {' '.join(what)} failed: {result.stderr.strip()}")
    objects: list[dict[str, Any]] = json.loads(result.stdout)["nftables"]
    return [entry[kind] for entry in objects if kind in entry] if kind else objects


def _run(arguments: list[str], script: str = "") -> subprocess.CompletedProcess[str]:
    """nft's end. Raises ``Broken`` if it crashed: that of nftables 1.0.6 does so over tables that 1.1.3 has made."""
    try:
        result = subprocess.run(
            ["nft", *arguments], input=script, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise MissingCapability("the program nft is missing", hint="apt-get install nftables") from error
    if result.returncode < 0:
        raise Broken(
            f"nft was ended by signal {-result.returncode}",
            hint="a newer nft, perhaps of a container, may have made tables that this one cannot read; does"
            " `nft list tables` work?",
        )
    return result
