"""``python -m bench``: what ``scripts/bench`` runs once everything is there."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import document
from bench.figures import table
from bench.interruption import Interruption
from bench.setting import PLACE, Setting
from spriggan import __version__
from spriggan.linux import cgroup

# Short ones first: a run that is broken off early has them.
NAMES = [
    "exec",
    "create",
    "restore",
    "parallel",
    "stream",
    "files",
    "proxy",
    "urls",
    "pool",
    "checkpoint",
    "pause",
    "disk",
    "crowd",
    "memory",
]
DOCUMENT = Path(__file__).parent.parent / "docs" / "performance.md"
EPILOG = """examples:
  scripts/bench                            everything, as tables: about a quarter of an hour
  scripts/bench exec create --rounds 50    two of them, thoroughly
  scripts/bench --json figures.json        everything, with every sample
  scripts/bench --document                 everything, into docs/performance.md

Ctrl-C tidies up. One that fails stops no other: it is named at the end, and the exit code is 1.
"""


def main() -> int:
    options = _options()
    interruption = Interruption()
    interruption.listen()
    results: dict[str, Any] = {"machine": machine(), "rounds": options.rounds, "benchmarks": {}}
    failed = []
    try:
        with Setting(options.rounds, interruption) as setting:
            for name in options.names:
                found = _measured(name, setting)
                results["benchmarks"][name] = found
                if found["failed"] is not None:
                    failed.append(name)
                if options.json:  # after each: what was measured is kept if a later one fails
                    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        failed.append("to leave nothing behind")
    if interruption.came:
        return 130
    if options.document:
        document.fill(DOCUMENT, results)
    if failed:
        print(f"these failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measured(name: str, setting: Setting) -> dict[str, Any]:
    """Run one benchmark, print its table, and return it for JSON."""
    print(f"==> {name}", file=sys.stderr, flush=True)
    module = importlib.import_module(f"bench.{name}")
    title, _, about = (inspect.getdoc(module) or name).partition("\n\n")
    found: dict[str, Any] = {"title": title.rstrip("."), "about": about, "failed": None, "rows": []}
    start = time.monotonic()
    try:
        found["rows"] = [row.to_json() for row in module.measure(setting)]
    except Exception as error:
        traceback.print_exc()
        found["failed"] = str(error) or type(error).__name__
    found["seconds"] = round(time.monotonic() - start, 1)
    print(f"\n{found['title']}\n\n{found['failed'] or table(found['rows'])}\n", flush=True)
    return found


def machine() -> dict[str, Any]:
    """Where this is measured; nothing that names the machine."""
    with open("/proc/meminfo", encoding="utf-8") as lines:
        memory = round(
            int(next(line for line in lines if line.startswith("MemTotal")).split()[1]) / (1 << 20)
        )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "spriggan": __version__,
        "kernel": ".".join(platform.release().split(".")[:2]),  # builds have names that say nothing elsewhere
        "distribution": platform.freedesktop_os_release()["PRETTY_NAME"],
        "file_system": _words("findmnt", "-n", "-o", "FSTYPE", "-T", str(PLACE)),
        "podman": _words("podman", "--version"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "memory_gib": memory,
        "cgroups": cgroup.hierarchies().kind,
        "load": os.getloadavg()[0],
    }


def _words(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure Spriggan against peers and the floor, in one run. Nothing is asserted.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}; all if none")
    parser.add_argument(
        "--rounds",
        type=int,
        default=20,
        help="how often each is measured, less what takes long; 20 if not given",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--document", action="store_true", help="put the tables into docs/performance.md; needs a run of all"
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    if options.document and options.names and set(options.names) != set(NAMES):
        parser.error("--document takes a run of all: leave the names out")
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if options.json and not options.json.resolve().parent.is_dir():
        parser.error(f"--json: there is no directory {options.json.parent}")
    options.names = options.names or NAMES
    return options


if __name__ == "__main__":
    sys.exit(main())
