"""Inside a guest: print what is left of the service after ``spriggan down``, a line for each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT / "tests"))

import serving  # noqa: E402

DATA = Path("/var/lib/spriggan")

if __name__ == "__main__":
    instance = json.loads((DATA / "instance.json").read_text())["id"]
    for line in serving.leftovers(instance, DATA):
        if f"{DATA}/images/" not in line:  # how the guest shows it the second disk
            print(line)
