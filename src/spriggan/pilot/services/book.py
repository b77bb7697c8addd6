"""The services' definitions on the sprite's own disk.

There, a checkpoint carries them, a restore brings them back, and a fork starts with them. The file
lies beside the sprite's root, where nothing inside can reach it; its content is checked all the
same, for the disk may come from anywhere.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from spriggan.linux import durably
from spriggan.pilot.request import BadRequest
from spriggan.pilot.services.definition import MAX_SERVICES, Definition, parse

FILE = "sprite/services.json"
VERSION = 1

log = logging.getLogger(__name__)


def load(disk: Path) -> dict[str, Definition]:
    """Read the definitions on ``disk``; what cannot be understood is put aside and said in the log."""
    file = disk / FILE
    try:
        data = json.loads(file.read_text())
        found = [_definition(name, fields) for name, fields in data["services"].items()]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, BadRequest) as error:
        log.error("the services on this disk cannot be read, their file is put aside: %r", error)
        file.rename(file.with_suffix(".unreadable"))
        return {}
    return {definition.name: definition for definition in found[:MAX_SERVICES]}


def save(disk: Path, definitions: Iterable[Definition]) -> None:
    """Replace the definitions on ``disk``; they are safe there on return. Raises ``OSError``."""
    services = {each.name: {k: v for k, v in asdict(each).items() if k != "name"} for each in definitions}
    text = json.dumps({"version": VERSION, "services": services}, indent=1)
    durably.write_text(disk / FILE, text)


def _definition(name: str, fields: dict[str, object]) -> Definition:
    definition = parse(name, fields)
    return Definition(**{**asdict(definition), "stopped": fields.get("stopped") is True})
